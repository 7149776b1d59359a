package com.example.mobilevit.vision

/**
 * Turns RGB bytes into what a model's input takes.
 *
 * A channel has 256 values only, so what becomes of each is computed once.
 */
class PixelEncoder(private val file: ClassifierFile) {
    private val floats = List(3) { channel -> FloatArray(256) { normalized(it, channel) } }
    private val bytes = List(3) { channel -> ByteArray(256) { quantized(it, channel) } }

    /** For an input of float32. */
    fun floats(rgb: ByteArray): FloatArray =
        FloatArray(rgb.size) { floats[it % 3][rgb[it].toInt() and 0xFF] }

    /** For an input of uint8 or int8, whose bytes LiteRT takes by the same call. */
    fun bytes(rgb: ByteArray): ByteArray =
        ByteArray(rgb.size) { bytes[it % 3][rgb[it].toInt() and 0xFF] }

    private fun normalized(pixel: Int, channel: Int): Float {
        val mean = file.mean.getOrElse(channel) { file.mean[0] }
        val std = file.std.getOrElse(channel) { file.std[0] }
        return (pixel - mean) / std
    }

    private fun quantized(pixel: Int, channel: Int): Byte {
        // uint8 is for pixels as they are; other readers of TFLite files agree.
        if (file.input.type != ElementType.INT8) return pixel.toByte()
        val steps = normalized(pixel, channel) / file.input.scale
        val value = Math.rint(steps.toDouble()).toInt() + file.input.zeroPoint
        return value.coerceIn(-128, 127).toByte()
    }
}
