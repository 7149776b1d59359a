package com.example.mobilevit.vision

/** The median of the last [size] numbers: what one hiccup of a phone cannot spoil. */
class Median(private val size: Int) {
    private val last = ArrayList<Double>()

    fun add(number: Double): Double {
        if (last.size == size) last.removeAt(0)
        last.add(number)
        return last.sorted()[last.size / 2]
    }
}
