import dataclasses
@dataclasses.dataclass(frozen=True)
class P:
    top1: float
PUBLISHED = {"mobilevit_xxs": P(68.9), "mobilevit_xs": P(74.6), "mobilevit_s": P(78.3)}
def load_weights(model, variant, weights, include_top):
    model.load_weights(weights)
