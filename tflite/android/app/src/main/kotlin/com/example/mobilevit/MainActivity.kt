package com.example.mobilevit

import android.Manifest.permission.CAMERA
import android.content.pm.PackageManager.PERMISSION_GRANTED
import android.graphics.Color
import android.os.Bundle
import android.view.WindowManager.LayoutParams.FLAG_KEEP_SCREEN_ON
import android.widget.TextView
import androidx.activity.ComponentActivity
import androidx.activity.SystemBarStyle
import androidx.activity.enableEdgeToEdge
import androidx.activity.result.contract.ActivityResultContracts.RequestPermission
import androidx.activity.viewModels
import androidx.camera.view.PreviewView
import androidx.core.content.ContextCompat
import androidx.core.view.ViewCompat
import androidx.core.view.WindowInsetsCompat
import androidx.core.view.updatePadding

/** The one screen: the camera, the best classes, and what runs them how fast. */
class MainActivity : ComponentActivity() {
    private val classifier by viewModels<ClassifierViewModel>()
    private val classes by lazy { findViewById<TextView>(R.id.classes) }
    private val status by lazy { findViewById<TextView>(R.id.status) }
    private var started = false
    private var asked = false

    private val permission = registerForActivityResult(RequestPermission()) { granted ->
        if (granted) start() else status.setText(R.string.permission_denied)
    }

    override fun onCreate(savedInstanceState: Bundle?) {
        super.onCreate(savedInstanceState)
        // From target SDK 35 on, apps draw behind the system bars whether they know it or not.
        enableEdgeToEdge(
            SystemBarStyle.dark(Color.TRANSPARENT),
            SystemBarStyle.dark(Color.TRANSPARENT)
        )
        setContentView(R.layout.activity_main)
        window.addFlags(FLAG_KEEP_SCREEN_ON)
        ViewCompat.setOnApplyWindowInsetsListener(findViewById(R.id.root)) { root, insets ->
            val bars = insets.getInsets(
                WindowInsetsCompat.Type.systemBars() or WindowInsetsCompat.Type.displayCutout()
            )
            root.updatePadding(bars.left, bars.top, bars.right, bars.bottom)
            WindowInsetsCompat.CONSUMED
        }
        classifier.findings.observe(this) { show(it) }
    }

    // Not in onCreate: one may have come back from the settings with the permission given.
    override fun onStart() {
        super.onStart()
        if (ContextCompat.checkSelfPermission(this, CAMERA) == PERMISSION_GRANTED) {
            start()
        } else if (!asked) {
            asked = true
            permission.launch(CAMERA)
        }
    }

    private fun start() {
        if (started) return
        started = true
        status.setText(R.string.starting)
        val preview = findViewById<PreviewView>(R.id.preview)
        startCamera(preview, classifier.executor, classifier::classify) { error ->
            status.text = getString(R.string.no_camera, error.message)
        }
    }

    private fun show(findings: Findings) {
        if (findings.failure != null) {
            status.text = getString(R.string.model_failed, findings.failure)
            return
        }
        classes.text = findings.scores.joinToString("\n") {
            getString(R.string.score, 100 * it.value, it.label)
        }
        status.text =
            getString(R.string.latency, findings.accelerator, findings.milliseconds)
    }
}
