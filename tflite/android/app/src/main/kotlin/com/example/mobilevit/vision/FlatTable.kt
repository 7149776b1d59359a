package com.example.mobilevit.vision

import java.nio.ByteBuffer
import java.nio.ByteOrder

/**
 * A table of a FlatBuffer, read by the numbers of its fields in the schema.
 *
 * The few fields that an app needs do not ask for generated code and its library.
 */
class FlatTable private constructor(private val data: ByteBuffer, private val start: Int) {

    fun int(field: Int): Int = position(field)?.let { data.getInt(it) } ?: 0

    fun byte(field: Int): Int = position(field)?.let { data.get(it).toInt() } ?: 0

    fun table(field: Int): FlatTable? = position(field)?.let { FlatTable(data, follow(it)) }

    fun tables(field: Int): List<FlatTable> = vector(field, 4) { FlatTable(data, follow(it)) }

    fun ints(field: Int): List<Int> = vector(field, 4) { data.getInt(it) }

    fun longs(field: Int): List<Long> = vector(field, 8) { data.getLong(it) }

    fun floats(field: Int): List<Float> = vector(field, 4) { data.getFloat(it) }

    fun bytes(field: Int): ByteArray = vector(field, 1) { data.get(it) }.toByteArray()

    fun text(field: Int): String = String(bytes(field), Charsets.UTF_8)

    private fun <T> vector(field: Int, size: Int, read: (Int) -> T): List<T> {
        val length = follow(position(field) ?: return emptyList())
        return List(data.getInt(length)) { read(length + 4 + size * it) }
    }

    /** Where a field is, or null if the file leaves it at its default. */
    private fun position(field: Int): Int? {
        val vtable = start - data.getInt(start)
        val slot = 4 + 2 * field
        if (slot >= data.getShort(vtable)) return null
        val offset = data.getShort(vtable + slot).toInt()
        return if (offset == 0) null else start + offset
    }

    private fun follow(position: Int): Int = position + data.getInt(position)

    companion object {
        fun root(bytes: ByteArray): FlatTable {
            val data = ByteBuffer.wrap(bytes).order(ByteOrder.LITTLE_ENDIAN)
            return FlatTable(data, data.getInt(0))
        }
    }
}
