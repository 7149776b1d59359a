package com.example.mobilevit.vision

import java.io.ByteArrayInputStream
import java.nio.ByteBuffer
import java.nio.ByteOrder
import java.util.zip.ZipInputStream

private const val END_SIGNATURE = 0x06054b50
private const val END_SIZE = 22
private const val MAX_COMMENT = 0x7FFF

/**
 * Returns the text of the first `.txt` in the ZIP archive behind a model, or null.
 *
 * That is where TFLite metadata keep the label file. Java's ZipFile wants a path, which an asset
 * does not have, and ZipInputStream wants to start at the archive: so its start is looked up in
 * the record that ends every archive.
 */
fun firstText(file: ByteArray): String? {
    val data = ByteBuffer.wrap(file).order(ByteOrder.LITTLE_ENDIAN)
    val last = file.size - END_SIZE
    val end = (last downTo maxOf(0, last - MAX_COMMENT)).firstOrNull {
        data.getInt(it) == END_SIGNATURE && it + data.getShort(it + 20) == last
    } ?: return null
    val directory = end - data.getInt(end + 12)
    // Some writers count offsets from the archive, others from the start of the whole file.
    val origin = directory - data.getInt(end + 16)
    val start = origin + data.getInt(directory + 42)
    ZipInputStream(ByteArrayInputStream(file, start, end - start)).use { archive ->
        generateSequence { archive.nextEntry }.forEach { entry ->
            if (entry.name.endsWith(".txt")) return String(archive.readBytes(), Charsets.UTF_8)
        }
    }
    return null
}
