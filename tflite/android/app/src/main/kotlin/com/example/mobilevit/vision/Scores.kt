package com.example.mobilevit.vision

/** A class and its score; the softmax is inside the model. */
data class Score(val index: Int, val label: String, val value: Float)

/** Returns the scores that the bytes of a quantized output stand for. */
fun dequantize(values: ByteArray, output: Tensor): FloatArray {
    val mask = if (output.type == ElementType.UINT8) 0xFF else -1
    return FloatArray(values.size) {
        ((values[it].toInt() and mask) - output.zeroPoint) * output.scale
    }
}

/** Returns the best classes, best first; equal ones stay in the order of the classes. */
fun best(scores: FloatArray, labels: List<String>, count: Int): List<Score> =
    scores.indices.sortedByDescending { scores[it] }.take(count)
        .map { Score(it, labels[it], scores[it]) }
