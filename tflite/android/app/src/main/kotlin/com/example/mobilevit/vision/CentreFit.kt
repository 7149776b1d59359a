package com.example.mobilevit.vision

private const val BITS = 22
private const val HALF = 1 shl (BITS - 1)

/**
 * Brings frames to the size of a model as its evaluation in Python does.
 *
 * A frame is turned upright, resized with its proportions kept until it just covers the model's
 * size (bilinear with antialiasing), and the centre is cut out. The arithmetic, fixed-point weights
 * and 8 bits between the two passes, is Pillow's: the pixels are the same, bit for bit.
 */
class CentreFit(private val width: Int, private val height: Int) {
    private var across = Taps(1, 1, 0, 1)
    private var along = across
    private var rows = ByteArray(0)
    private var geometry = listOf<Int>()

    /** Returns RGB bytes, (height, width, 3). */
    fun fit(frame: Frame): ByteArray {
        prepare(frame.width, frame.height)
        // To the width, and only the rows that the second pass reads ...
        val top = along.first.first()
        val count = rows.size / (3 * width)
        for (row in 0 until count) {
            val start = frame.origin + (top + row) * frame.down
            blend(frame.rgba, start, frame.right, across, rows, 3 * width * row, 3)
        }
        // ... and to the height, column by column.
        val picture = ByteArray(3 * width * height)
        for (column in 0 until width) {
            val start = 3 * (column - width * top)
            blend(rows, start, 3 * width, along, picture, 3 * column, 3 * width)
        }
        return picture
    }

    /** Computes the weights for a size of frames, once. */
    private fun prepare(frameWidth: Int, frameHeight: Int) {
        if (geometry == listOf(frameWidth, frameHeight)) return
        geometry = listOf(frameWidth, frameHeight)
        val scale = maxOf(width.toDouble() / frameWidth, height.toDouble() / frameHeight)
        val wide = maxOf(width, Math.rint(frameWidth * scale).toInt())
        val high = maxOf(height, Math.rint(frameHeight * scale).toInt())
        across = Taps(frameWidth, wide, (wide - width) / 2, width)
        along = Taps(frameHeight, high, (high - height) / 2, height)
        val bottom = along.first.last() + along.weights.last().size
        rows = ByteArray(3 * width * (bottom - along.first.first()))
    }

    /** One line of a pass: pixels `from` + i * `step` are blended into `to` + j * `toStep`. */
    private fun blend(
        source: ByteArray,
        from: Int,
        step: Int,
        taps: Taps,
        target: ByteArray,
        to: Int,
        toStep: Int
    ) {
        var write = to
        for (pixel in taps.first.indices) {
            var read = from + step * taps.first[pixel]
            // The weights sum up to 1, so that nothing needs clipping.
            var red = HALF
            var green = HALF
            var blue = HALF
            for (weight in taps.weights[pixel]) {
                red += weight * (source[read].toInt() and 0xFF)
                green += weight * (source[read + 1].toInt() and 0xFF)
                blue += weight * (source[read + 2].toInt() and 0xFF)
                read += step
            }
            target[write] = (red shr BITS).toByte()
            target[write + 1] = (green shr BITS).toByte()
            target[write + 2] = (blue shr BITS).toByte()
            write += toStep
        }
    }
}

/**
 * Which pixels of a line, and how much of each, make up the pixels `from` until `from + count` of
 * that line when it is resized from [size] to [newSize]: a triangle as wide as the reduction.
 */
private class Taps(size: Int, newSize: Int, from: Int, count: Int) {
    val first = IntArray(count)
    val weights: Array<IntArray>

    init {
        val scale = size.toDouble() / newSize
        val support = maxOf(scale, 1.0)
        weights = Array(count) {
            val centre = (from + it + 0.5) * scale
            first[it] = maxOf(0, (centre - support + 0.5).toInt())
            val end = minOf(size, (centre + support + 0.5).toInt())
            val parts = DoubleArray(end - first[it]) { tap ->
                maxOf(0.0, 1 - Math.abs((first[it] + tap + 0.5 - centre) / support))
            }
            val sum = parts.sum()
            IntArray(parts.size) { tap -> (parts[tap] / sum * (1 shl BITS) + 0.5).toInt() }
        }
    }
}
