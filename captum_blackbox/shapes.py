"""Names for the tensors that flow through the library.

``N`` images of ``C`` channels and ``H × W`` pixels. Importance is a number per pixel; larger means
more important.
"""

from typing import TypeAlias

from jaxtyping import Float, Int
from torch import Tensor

Images: TypeAlias = Float[Tensor, "batch channels height width"]
Maps: TypeAlias = Float[Tensor, "batch 1 height width"]
Saliency: TypeAlias = Float[Tensor, "batch height width"]
Scores: TypeAlias = Float[Tensor, "batch classes"]
Logits: TypeAlias = Float[Tensor, "batch classes"]
Labels: TypeAlias = Int[Tensor, " batch"]
PerImage: TypeAlias = Float[Tensor, " batch"]

Target: TypeAlias = int | Tensor | list[int] | tuple[int, ...] | list[tuple[int, ...]] | None
"""What to explain, in any form that Captum accepts; ``None`` asks for the prediction."""
