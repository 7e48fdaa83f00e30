"""Signal and distractor: patterns fitted to data, and explanations made with them.

Importing this package registers its composites with Zennit.
"""

from captum_blackbox.patterns.attribution import PatternAttribution, PatternNet
from captum_blackbox.patterns.composites import PatternAttributionComposite, PatternNetComposite
from captum_blackbox.patterns.fitting import fit_patterns
from captum_blackbox.patterns.patterns import PatternReport, Patterns
from captum_blackbox.patterns.quality_result import SignalQuality
from captum_blackbox.patterns.signal_quality import signal_quality

__all__ = [
    "PatternAttribution",
    "PatternAttributionComposite",
    "PatternNet",
    "PatternNetComposite",
    "PatternReport",
    "Patterns",
    "SignalQuality",
    "fit_patterns",
    "signal_quality",
]
