"""Dissections in a folder: found again, gone on with where they stopped, or made."""

import contextlib
import hashlib
import json
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, TypeAlias

from captum_blackbox.artifacts import check_header, fingerprint, versions
from captum_blackbox.cli.dissect_options import OnErrorName
from captum_blackbox.cli.messages import say
from captum_blackbox.concepts import Concepts
from captum_blackbox.dissection import Dissection
from captum_blackbox.dissection.layer_dissector import LayerDissector
from captum_blackbox.errors import ArtifactError

UNFINISHED = "unfinished"
_TAKEN = ("index", "explanations")  # names of files that are of no layer

Dissector: TypeAlias = Callable[[str | Sequence[str]], LayerDissector]
"""A layer, or a list of them → what dissects it."""


def layer_stem(layer: str) -> str:
    """Return a harmless file name for a layer.

    Example:
        >>> layer_stem("features.6.2"), layer_stem("a/<b>"), layer_stem("")
        ('features.6.2', 'a-b', 'model')
    """
    stem = re.sub(r"[^A-Za-z0-9._]+", "-", layer).strip("-.") or "model"
    return f"layer-{stem}" if stem in _TAKEN else stem


@dataclass(frozen=True)
class KeptDissections:
    """Results in a folder, each known by the model, the data and the settings in its file.

    Attributes:
        folder: Where.
        preparation: How the model takes images, in words.
        batch_size: Images at a time.
        workers: Processes that read.
        on_error: What a broken file does.
    """

    folder: Path
    preparation: str
    batch_size: int
    workers: int
    on_error: OnErrorName

    def results(
        self, dissector: Dissector, layers: Sequence[str], concepts: Concepts, name: str = ""
    ) -> dict[str, Dissection]:
        """Return layer → result; those that are not kept are made in one pass, and kept.

        Args:
            dissector: Makes what dissects.
            layers: Names.
            concepts: What is asked.
            name: Of a control, for its file; nothing else depends on it.
        """
        paths = {layer: self._path(layer, name) for layer in layers}
        digest = concepts.digest()
        found = {}
        for layer, path in paths.items():
            with contextlib.suppress(ArtifactError):
                found[layer] = self._kept(path, dissector(layer), digest)
        missing = [layer for layer in layers if layer not in found]
        if found:
            say(f"found again: {', '.join(str(paths[layer]) for layer in found)}")
        if missing:
            found |= self._made(dissector(missing), concepts, digest, paths)
        return {layer: found[layer] for layer in layers}

    def _kept(self, path: Path, dissector: LayerDissector, digest: str) -> Dissection:
        result = Dissection.load(path)
        check_header(path, result.settings, self._expected(dissector, digest))
        dissector.use(result)
        if result.skipped and self.on_error is OnErrorName.RAISE:
            raise ArtifactError(f"{str(path)!r} leaves out what was broken")
        return result

    def _made(
        self, dissector: LayerDissector, concepts: Concepts, digest: str, paths: dict[str, Path]
    ) -> dict[str, Dissection]:
        unfinished = self.folder / UNFINISHED
        # A folder of its own for each run, so that none is in the way of another one.
        run = [
            fingerprint(dissector.model),
            list(dissector.layers),
            sorted(path.name for path in paths.values()),
            self._expected(dissector, digest),
            self.batch_size,
            self.on_error.value,
        ]
        own = hashlib.sha256(json.dumps(run).encode()).hexdigest()[:16]
        made = dissector.dissect(
            concepts,
            batch_size=self.batch_size,
            num_workers=self.workers,
            on_error=self.on_error.value,
            checkpoint=unfinished / own,
        )
        results = {layer: self._known(result) for layer, result in made.items()}
        for layer, result in results.items():
            result.save(paths[layer])
        if unfinished.is_dir() and not any(unfinished.iterdir()):
            unfinished.rmdir()
        return results

    def _known(self, result: Dissection) -> Dissection:
        return replace(result, settings={**result.settings, "preparation": self.preparation})

    def _expected(self, dissector: LayerDissector, digest: str) -> dict[str, Any]:
        settings = dissector.settings.to_json()
        del settings["threshold_method"]  # in the result it is the one that memory allowed
        settings |= {"versions": versions(), "preparation": self.preparation, "data": digest}
        return settings

    def _path(self, layer: str, name: str) -> Path:
        stem = layer_stem(layer)
        if not name:
            return self.folder / f"{stem}.safetensors"
        return self.folder / "controls" / f"{stem}--{name}.safetensors"
