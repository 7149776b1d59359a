package com.example.mobilevit.vision

/** The element types that an image classifier has at its ends. */
enum class ElementType(val code: Int) { FLOAT32(0), UINT8(3), INT8(9) }

/** An input or output; [scale] and [zeroPoint] are those of a quantized one, else 0. */
data class Tensor(val shape: List<Int>, val type: ElementType, val scale: Float, val zeroPoint: Int)

/**
 * What an app needs to know of an image classifier, read from the bytes of its `.tflite` file.
 *
 * [mean] and [std] are the NormalizationOptions of its metadata, one number or one a channel: the
 * model takes (pixel - mean) / std. A file without them takes pixels of 0 to 255.
 */
class ClassifierFile(bytes: ByteArray) {
    val input: Tensor
    val output: Tensor
    val labels: List<String>
    val mean: List<Float>
    val std: List<Float>

    val height: Int get() = input.shape[1]
    val width: Int get() = input.shape[2]

    // The numbers are those of the fields in TFLite's schema.fbs and metadata_schema.fbs.
    init {
        require(bytes.size > 8 && String(bytes, 4, 4, Charsets.US_ASCII) == "TFL3") {
            "This is no .tflite file"
        }
        val model = FlatTable.root(bytes)
        val graph = model.tables(2).first()
        input = tensor(graph, graph.ints(1).single())
        output = tensor(graph, graph.ints(2).single())
        require(input.shape.size == 4 && input.shape[0] == 1 && input.shape[3] == 3) {
            "The model must take one RGB picture (1, height, width, 3), not ${input.shape}"
        }
        require(output.shape.size == 2 && output.shape[0] == 1) {
            "The model must give one score a class (1, classes), not ${output.shape}"
        }
        val normalization = normalization(model)
        mean = normalization?.floats(0).orEmpty().ifEmpty { listOf(0f) }
        std = normalization?.floats(1).orEmpty().ifEmpty { listOf(1f) }

        val classes = output.shape[1]
        val lines = firstText(bytes)?.trimEnd('\n', '\r')?.lineSequence()?.toList()
        labels = lines ?: List(classes) { "class $it" }
        require(labels.size == classes) {
            "The file has ${labels.size} labels for $classes classes"
        }
    }

    private fun tensor(graph: FlatTable, index: Int): Tensor {
        val table = graph.tables(0)[index]
        val type = ElementType.values().find { it.code == table.byte(1) }
        val quantization = table.table(4)
        return Tensor(
            table.ints(0),
            requireNotNull(type) { "The ends of the model must be float32, uint8 or int8" },
            quantization?.floats(2)?.firstOrNull() ?: 0f,
            quantization?.longs(3)?.firstOrNull()?.toInt() ?: 0
        )
    }

    private fun normalization(model: FlatTable): FlatTable? {
        val entry = model.tables(6).find { it.text(0) == "TFLITE_METADATA" } ?: return null
        val metadata = FlatTable.root(model.tables(4)[entry.int(1)].bytes(0))
        val input = metadata.tables(3).firstOrNull()?.tables(2)?.firstOrNull() ?: return null
        // 1 is NormalizationOptions in the union of process units.
        return input.tables(4).find { it.byte(0) == 1 }?.table(1)
    }
}
