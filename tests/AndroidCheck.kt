// What the app in tflite/android does to files and pixels, for test_android.py.
// Its argument is a folder; commands.txt there holds one command a line, whose
// last word is the file to write.

import com.example.mobilevit.vision.CentreFit
import com.example.mobilevit.vision.ClassifierFile
import com.example.mobilevit.vision.ElementType
import com.example.mobilevit.vision.Frame
import com.example.mobilevit.vision.Median
import com.example.mobilevit.vision.PixelEncoder
import com.example.mobilevit.vision.Tensor
import com.example.mobilevit.vision.best
import com.example.mobilevit.vision.dequantize
import java.io.File
import java.nio.ByteBuffer
import java.nio.ByteOrder

fun main(arguments: Array<String>) {
    val folder = File(arguments[0])
    File(folder, "commands.txt").readLines().forEach { line ->
        val words = line.split(" ")
        val target = File(folder, words.last())
        val result = try {
            run(folder, words)
        } catch (error: IllegalArgumentException) {
            "error: ${error.message}".toByteArray()
        }
        target.writeBytes(result)
    }
}

private fun run(folder: File, words: List<String>): ByteArray {
    fun bytes(index: Int) = File(folder, words[index]).readBytes()
    fun file() = ClassifierFile(bytes(1))
    fun int(index: Int) = words[index].toInt()
    return when (words[0]) {
        // file MODEL: what stands in a model
        "file" -> file().let {
            val heads = listOf(show(it.input), show(it.output), "${it.mean}", "${it.std}")
            (heads + it.labels).joinToString("\n").toByteArray()
        }

        // fit FRAME COLUMNS ROWS STRIDE ROTATION WIDTH HEIGHT: the picture that a model gets
        "fit" -> {
            val frame = Frame(bytes(1), int(2), int(3), int(4), int(5))
            CentreFit(int(6), int(7)).fit(frame)
        }

        // encode MODEL PICTURE: the input of the model
        "encode" -> file().let {
            val encoder = PixelEncoder(it)
            if (it.input.type == ElementType.FLOAT32) {
                toBytes(encoder.floats(bytes(2)))
            } else {
                encoder.bytes(bytes(2))
            }
        }

        // best MODEL OUTPUT COUNT: the best classes
        "best" -> file().let {
            val output = bytes(2)
            val scores = if (it.output.type == ElementType.FLOAT32) {
                toFloats(output)
            } else {
                dequantize(output, it.output)
            }
            best(scores, it.labels, int(3))
                .joinToString("\n") { score -> "${score.index}\t${score.label}\t${score.value}" }
                .toByteArray()
        }

        // median NUMBERS...: after each, the median of the last three
        "median" -> Median(3).let { median ->
            words.drop(1).dropLast(1).joinToString(" ") { "${median.add(it.toDouble())}" }
                .toByteArray()
        }

        else -> throw IllegalStateException(words[0])
    }
}

private fun show(tensor: Tensor) =
    "${tensor.shape} ${tensor.type} ${tensor.scale} ${tensor.zeroPoint}"

private fun toBytes(values: FloatArray): ByteArray {
    val buffer = ByteBuffer.allocate(4 * values.size).order(ByteOrder.LITTLE_ENDIAN)
    values.forEach { buffer.putFloat(it) }
    return buffer.array()
}

private fun toFloats(bytes: ByteArray): FloatArray {
    val buffer = ByteBuffer.wrap(bytes).order(ByteOrder.LITTLE_ENDIAN)
    return FloatArray(bytes.size / 4) { buffer.getFloat() }
}
