package com.example.mobilevit

import androidx.camera.core.ImageProxy
import com.example.mobilevit.vision.Frame

/** Takes RGBA frames out of CameraX, always into the same array: a new one each would be garbage. */
class PixelCopy {
    private var rgba = ByteArray(0)

    /** The frame is valid until the next call. */
    fun frame(image: ImageProxy): Frame {
        val plane = image.planes[0]
        val buffer = plane.buffer.apply { rewind() }
        if (rgba.size < buffer.remaining()) rgba = ByteArray(buffer.remaining())
        buffer.get(rgba, 0, buffer.remaining())
        val rotation = image.imageInfo.rotationDegrees
        return Frame(rgba, image.width, image.height, plane.rowStride, rotation)
    }
}
