plugins {
    alias(libs.plugins.android.application)
}

android {
    namespace = "com.example.mobilevit"
    compileSdk = 36

    defaultConfig {
        applicationId = "com.example.mobilevit"
        minSdk = 24 // what LiteRT's GPU accelerator asks for
        targetSdk = 36
        versionCode = 1
        versionName = "1.0"
    }

    compileOptions {
        sourceCompatibility = JavaVersion.VERSION_17
        targetCompatibility = JavaVersion.VERSION_17
    }
}

dependencies {
    implementation(libs.activity)
    implementation(libs.camera.camera2)
    implementation(libs.camera.lifecycle)
    implementation(libs.camera.view)
    implementation(libs.core.ktx)
    implementation(libs.lifecycle.livedata)
    implementation(libs.lifecycle.runtime.ktx)
    implementation(libs.litert)
    implementation(libs.litert.gpu) // without it LiteRT has no GPU, from 2.3 on
}

/** Puts the models among the assets; stops the build with what to do if one is missing. */
abstract class CopyModels : DefaultTask() {
    @get:InputFiles
    abstract val models: ConfigurableFileCollection

    @get:OutputDirectory
    abstract val assets: DirectoryProperty

    @TaskAction
    fun copy() {
        models.forEach { model ->
            if (!model.isFile) {
                throw GradleException(
                    "There is no model $model. Make it with convert_android.py, or name the " +
                        "folder of your models: -PmodelDir=/path/to/models"
                )
            }
            model.copyTo(assets.file(model.name).get().asFile, overwrite = true)
        }
    }
}

val copyModels = tasks.register<CopyModels>("copyModels") {
    val folder = providers.gradleProperty("modelDir").orElse("models").get()
    models.from(listOf("gpu.tflite", "cpu.tflite").map { rootDir.resolve(folder).resolve(it) })
}

androidComponents {
    onVariants { variant ->
        variant.sources.assets?.addGeneratedSourceDirectory(copyModels, CopyModels::assets)
    }
}
