package com.example.mobilevit

import android.util.Size
import androidx.activity.ComponentActivity
import androidx.camera.core.CameraSelector
import androidx.camera.core.ImageAnalysis
import androidx.camera.core.Preview
import androidx.camera.core.resolutionselector.ResolutionSelector
import androidx.camera.core.resolutionselector.ResolutionStrategy
import androidx.camera.lifecycle.ProcessCameraProvider
import androidx.camera.lifecycle.awaitInstance
import androidx.camera.view.PreviewView
import androidx.lifecycle.lifecycleScope
import java.util.concurrent.Executor
import kotlinx.coroutines.launch

/**
 * Shows the camera in [view] and hands its frames to [analyzer] on [executor], while the activity
 * is to be seen; calls [onFailure] if there is no camera.
 */
fun ComponentActivity.startCamera(
    view: PreviewView,
    executor: Executor,
    analyzer: ImageAnalysis.Analyzer,
    onFailure: (Exception) -> Unit
) {
    val preview = Preview.Builder().build()
    preview.setSurfaceProvider(view.surfaceProvider)
    val analysis = ImageAnalysis.Builder()
        .setResolutionSelector(small)
        .setOutputImageFormat(ImageAnalysis.OUTPUT_IMAGE_FORMAT_RGBA_8888)
        // While the model is busy, frames are dropped instead of queued.
        .setBackpressureStrategy(ImageAnalysis.STRATEGY_KEEP_ONLY_LATEST)
        .build()
    analysis.setAnalyzer(executor, analyzer)
    lifecycleScope.launch {
        try {
            val provider = ProcessCameraProvider.awaitInstance(this@startCamera)
            provider.unbindAll()
            provider.bindToLifecycle(
                this@startCamera,
                provider.backElseFront(),
                preview,
                analysis
            )
        } catch (error: Exception) {
            onFailure(error)
        }
    }
}

// As much as a model of some 256 pixels needs. It is of 4:3, as previews are by default: so the
// square on the screen is the one that the model gets.
private val small = ResolutionSelector.Builder()
    .setResolutionStrategy(
        ResolutionStrategy(
            Size(640, 480),
            ResolutionStrategy.FALLBACK_RULE_CLOSEST_HIGHER_THEN_LOWER
        )
    )
    .build()

private fun ProcessCameraProvider.backElseFront(): CameraSelector =
    listOf(CameraSelector.DEFAULT_BACK_CAMERA, CameraSelector.DEFAULT_FRONT_CAMERA)
        .firstOrNull { hasCamera(it) } ?: throw IllegalStateException("the device has none")
