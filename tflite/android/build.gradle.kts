plugins {
    alias(libs.plugins.android.application) apply false
    // The Android plugin brings a Kotlin compiler; this replaces it by a newer one, since a
    // compiler reads libraries of its own and the next version only.
    alias(libs.plugins.kotlin.android) apply false
}
