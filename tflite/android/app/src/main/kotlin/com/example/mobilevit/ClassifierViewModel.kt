package com.example.mobilevit

import android.app.Application
import android.util.Log
import androidx.camera.core.ImageProxy
import androidx.lifecycle.AndroidViewModel
import androidx.lifecycle.MutableLiveData
import com.example.mobilevit.vision.Median
import com.example.mobilevit.vision.Score
import com.google.ai.edge.litert.Accelerator
import java.util.concurrent.Executor
import java.util.concurrent.Executors

private const val TAG = "MobileViT"
private const val TOP = 5
private const val RUNS = 31

/** What is to be seen: the best classes and who found them, or what went wrong. */
data class Findings(
    val scores: List<Score> = emptyList(),
    val accelerator: String = "",
    val milliseconds: Double = 0.0,
    val failure: String? = null
)

/**
 * Owns the model while the screen comes and goes (a rotation makes a new activity, no new model).
 *
 * The model is made, run and closed on [executor], so that nothing here needs a lock.
 */
class ClassifierViewModel(application: Application) : AndroidViewModel(application) {
    val executor: Executor = worker
    val findings = MutableLiveData<Findings>()

    // The GPU first; whatever it does not take, the CPU does. Each has the file that suits it.
    private val candidates =
        mutableListOf(Accelerator.GPU to "gpu.tflite", Accelerator.CPU to "cpu.tflite")
    private var classifier: Classifier? = null
    private var accelerator = ""
    private var latency = Median(RUNS)
    private val pixels = PixelCopy()

    init {
        executor.execute { openNext("") }
    }

    /** Classifies a frame, on [executor]; closes it, without which no other would come. */
    fun classify(image: ImageProxy) = image.use {
        val current = classifier ?: return@use
        try {
            val scores = current.classify(pixels.frame(it), TOP)
            val median = latency.add(current.milliseconds)
            findings.postValue(Findings(scores, accelerator, median))
        } catch (error: Exception) {
            close()
            openNext(error.toString())
        }
    }

    /** Opens the next candidate that works, or reports why there is none. */
    private fun openNext(reason: String) {
        var failure = reason
        while (classifier == null && candidates.isNotEmpty()) {
            val (candidate, name) = candidates.removeAt(0)
            try {
                classifier = Classifier(getApplication<Application>().assets, name, candidate)
                accelerator = candidate.name
                latency = Median(RUNS)
            } catch (error: Exception) {
                Log.w(TAG, "$candidate does not run $name", error)
                failure = error.toString()
            }
        }
        if (classifier == null) findings.postValue(Findings(failure = failure))
    }

    private fun close() {
        classifier?.close()
        classifier = null
    }

    override fun onCleared() = executor.execute { close() }

    private companion object {
        // For the life of the process: a frame that comes late still finds someone to close it.
        val worker: Executor = Executors.newSingleThreadExecutor()
    }
}
