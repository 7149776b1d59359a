package com.example.mobilevit.vision

/**
 * A picture as cameras give it: rows of RGBA bytes, maybe padded, maybe lying on its side.
 *
 * CameraX gives these with OUTPUT_IMAGE_FORMAT_RGBA_8888, and Bitmap.copyPixelsToBuffer does for
 * an ARGB_8888 bitmap.
 *
 * @param rowStride bytes from one row to the next, at least 4 * columns.
 * @param rotation by how many degrees the picture must be turned clockwise to stand upright: 0,
 * 90, 180 or 270, as in ImageInfo.rotationDegrees.
 */
class Frame(
    val rgba: ByteArray,
    private val columns: Int,
    private val rows: Int,
    private val rowStride: Int,
    private val rotation: Int
) {
    init {
        require(rotation in listOf(0, 90, 180, 270)) { "rotation must be a right angle: $rotation" }
        require(rowStride >= PIXEL * columns) { "rows of $columns pixels overlap: $rowStride" }
        require(rgba.size >= rowStride * (rows - 1) + PIXEL * columns) { "too few bytes" }
    }

    // Turning a picture moves no byte: it only changes where a pixel's neighbours lie.

    val width: Int = if (rotation % 180 == 0) columns else rows
    val height: Int = if (rotation % 180 == 0) rows else columns

    /** Bytes from a pixel to the one at its right, upright. */
    val right: Int = along(rotation)

    /** Bytes from a pixel to the one below it, upright. */
    val down: Int = along((rotation + 270) % 360)

    /** Where the upper left pixel lies, upright. */
    val origin: Int = (if (rotation in 180..270) PIXEL * (columns - 1) else 0) +
        (if (rotation in 90..180) rowStride * (rows - 1) else 0)

    /** Bytes to the next pixel in the direction that becomes "right" by this turn. */
    private fun along(turn: Int): Int = when (turn) {
        0 -> PIXEL
        90 -> -rowStride
        180 -> -PIXEL
        else -> rowStride
    }

    private companion object {
        const val PIXEL = 4
    }
}
