package com.example.mobilevit

import android.content.res.AssetManager
import com.example.mobilevit.vision.CentreFit
import com.example.mobilevit.vision.ClassifierFile
import com.example.mobilevit.vision.ElementType
import com.example.mobilevit.vision.Frame
import com.example.mobilevit.vision.PixelEncoder
import com.example.mobilevit.vision.Score
import com.example.mobilevit.vision.best
import com.example.mobilevit.vision.dequantize
import com.google.ai.edge.litert.Accelerator
import com.google.ai.edge.litert.CompiledModel
import com.google.ai.edge.litert.TensorBuffer

/**
 * A classifier file of the assets, compiled for one accelerator.
 *
 * It is bound to no thread, but only one at a time may use it.
 *
 * @throws com.google.ai.edge.litert.LiteRtException if the accelerator does not take the model.
 * One accelerator alone is asked for: with GPU and CPU together LiteRT runs what the GPU refuses
 * on the CPU and does not say so.
 */
class Classifier(assets: AssetManager, name: String, accelerator: Accelerator) : AutoCloseable {
    private val file = ClassifierFile(assets.open(name).use { it.readBytes() })
    private val fit = CentreFit(file.width, file.height)
    private val encoder = PixelEncoder(file)
    private val model = CompiledModel.create(assets, name, CompiledModel.Options(accelerator))
    private val inputs = mutableListOf<TensorBuffer>()
    private val outputs = mutableListOf<TensorBuffer>()

    /** How long the last frame took, from its pixels in RGB to its scores. */
    var milliseconds = 0.0
        private set

    init {
        try {
            inputs += model.createInputBuffers()
            outputs += model.createOutputBuffers()
            // Some GPUs fail only here; and the first run, which compiles, is never counted.
            scores(ByteArray(3 * file.width * file.height))
        } catch (error: Exception) {
            close()
            throw error
        }
    }

    fun classify(frame: Frame, count: Int): List<Score> =
        best(scores(fit.fit(frame)), file.labels, count)

    private fun scores(rgb: ByteArray): FloatArray {
        val start = System.nanoTime()
        if (file.input.type == ElementType.FLOAT32) {
            inputs[0].writeFloat(encoder.floats(rgb))
        } else {
            // LiteRT copies the bytes as they are, so this call is for uint8 too.
            inputs[0].writeInt8(encoder.bytes(rgb))
        }
        model.run(inputs, outputs)
        val scores = if (file.output.type == ElementType.FLOAT32) {
            outputs[0].readFloat()
        } else {
            dequantize(outputs[0].readInt8(), file.output)
        }
        milliseconds = (System.nanoTime() - start) / 1e6
        return scores
    }

    override fun close() {
        (inputs + outputs).forEach { it.close() }
        model.close()
    }
}
