package com.example.mobilevit

import android.content.Context
import android.util.AttributeSet
import android.widget.FrameLayout

/** The largest square there is room for: a preview in it shows what the model sees, no more. */
class SquareFrame(context: Context, attributes: AttributeSet?) : FrameLayout(context, attributes) {
    override fun onMeasure(widthMeasureSpec: Int, heightMeasureSpec: Int) {
        val side =
            minOf(MeasureSpec.getSize(widthMeasureSpec), MeasureSpec.getSize(heightMeasureSpec))
        val spec = MeasureSpec.makeMeasureSpec(side, MeasureSpec.EXACTLY)
        super.onMeasure(spec, spec)
    }
}
