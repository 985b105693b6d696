"""MONAI's supervised trainer, serving maps, epoch and log of its loss."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import torch
from ignite.engine import Engine, Events
from monai.data import MetaTensor
from monai.engines import SupervisedTrainer, default_prepare_batch
from monai.engines.utils import IterationEvents
from monai.utils import CommonKeys, ImageMetaKey, ensure_tuple
from torch import Tensor, nn

from monai_segloss.core.taps import Taps
from monai_segloss.datalist import case_name
from monai_segloss.engine.errors import NotFiniteError, not_finite, not_finite_entry
from monai_segloss.schedules.means import TermMeans

KEPT = "Nothing of this epoch is saved; checkpoints of epochs before it are whole. A lower learning rate may help."


class SegLossTrainer(SupervisedTrainer):
    """``SupervisedTrainer`` that also serves the maps, the epoch and the log of its loss.

    A batch key that a map in ``loss_function.needs`` names reaches the loss alongside the label, as
    ``{"label": label, key: map}``; a map that the batch lacks is left to the loss, which computes it. Handlers,
    metrics and postprocessing see the plain label. Every epoch begins with ``loss_function.set_epoch(epoch)``, counted
    from 0, and ends with the mean of each entry of ``loss_function.last``, over all processes, in ``state.metrics`` as
    ``loss_<term>``, where every MONAI logger finds it; losses whose weights may change have theirs next to it as
    ``weight_<term>``, and get the same means by the names of their terms (``loss_function.end_epoch``). Losses without
    these attributes, MONAI's own included, train as they always did. What the loss takes from the network is read by
    hooks and reaches it like a map; its opponents make their step after that of the network, and the mean of their losses
    is in ``state.metrics`` as ``opponent_<name>``.

    Args:
        *args, **kwargs: as for ``monai.engines.SupervisedTrainer``.
        prepare_batch: as there; its label may be a tensor, not a mapping.
        train_handlers: as there.
        target_keys: further batch keys for the loss, e.g. ``("mask", "weight_map")``.

    A loss that is NaN or infinite ends the training before it reaches the weights, and so do weights that are, before
    anything is validated or saved.

    Raises:
        ValueError: a loss that takes features of the network is not prepared for it, see `monai_segloss.engine.prepared`.
        KeyError: a key of ``target_keys`` is not in the batch.
        NotFiniteError: the loss of an iteration, or a weight at the end of an epoch, is NaN or infinite.
    """

    def __init__(
        self,
        *args: Any,
        prepare_batch: Callable[..., Any] = default_prepare_batch,
        train_handlers: Sequence[Any] | None = None,
        target_keys: Sequence[str] = (),
        **kwargs: Any,
    ) -> None:
        self._prepare_plain = prepare_batch
        self.target_keys = tuple(target_keys)
        self.taps: Taps | None = None
        super().__init__(
            *args,
            prepare_batch=self._prepare_with_maps,
            # first in the list: the handlers after it find the plain label and the finished metrics
            train_handlers=[_LossEvents(), *(train_handlers or ())],
            **kwargs,
        )
        shape = getattr(self.loss_function, "shape", None)
        if shape is None and getattr(self.loss_function, "brings", False):
            raise ValueError(
                f"loss_function: {type(self.loss_function).__name__} is not prepared for the network; give "
                "monai_segloss.engine.prepared(loss, network, in_channels, patch_size), and the optimizer its parameters."
            )
        if shape is not None and shape.without("image").taps:
            self.taps = Taps(self.network, shape.without("image"))

    def _prepare_with_maps(
        self, batchdata: Any, device: torch.device | None = None, non_blocking: bool = False, **kwargs: Any
    ) -> Any:
        prepared = self._prepare_plain(batchdata, device, non_blocking, **kwargs)
        maps = {
            key: batchdata[key].to(device=device, non_blocking=non_blocking, **kwargs) for key in self._keys(batchdata)
        }
        taps = getattr(self.loss_function, "taps", ())
        if not maps and not taps:
            return prepared
        image, label, *rest = prepared
        if "image" in taps:
            maps[CommonKeys.IMAGE] = image
        return (image, {CommonKeys.LABEL: label, **maps}, *rest)

    def _keys(self, batchdata: Any) -> list[str]:
        for key in self.target_keys:
            if key not in batchdata:
                raise KeyError(f"target_keys names {key!r}, which is not in the batch; it has {sorted(batchdata)}.")
        needed = (spec.key for spec in getattr(self.loss_function, "needs", ()))
        return [*self.target_keys, *(key for key in needed if isinstance(batchdata, Mapping) and key in batchdata)]


class _LossEvents:
    """Plain label after the loss, epoch before it, means of the terms after each epoch; what is not finite ends it."""

    def __init__(self) -> None:
        self.terms, self.opponents = TermMeans(), TermMeans()
        self.logged: list[str] = []

    def attach(self, engine: Engine) -> None:
        engine.add_event_handler(Events.EPOCH_STARTED, self.start)
        engine.add_event_handler(IterationEvents.FORWARD_COMPLETED, self.hand_over)
        engine.add_event_handler(IterationEvents.LOSS_COMPLETED, self.collect)
        engine.add_event_handler(IterationEvents.MODEL_COMPLETED, self.update)
        engine.add_event_handler(Events.EPOCH_COMPLETED, self.report)

    def start(self, engine: Any) -> None:
        for name in self.logged:  # a term whose weight is 0 from now on must not keep its last value
            engine.state.metrics.pop(name, None)
        self.terms, self.opponents = TermMeans(), TermMeans()
        set_epoch = getattr(engine.loss_function, "set_epoch", None)
        if set_epoch is not None:
            set_epoch(engine.state.epoch - 1)

    def hand_over(self, engine: Any) -> None:
        if engine.taps is not None:
            engine.state.output[CommonKeys.LABEL].update(engine.taps.take())

    def update(self, engine: Any) -> None:
        self.opponents.add(getattr(engine.loss_function, "update", dict)())

    def collect(self, engine: Any) -> None:
        _refuse_not_finite(engine)
        target = engine.state.output[CommonKeys.LABEL]
        if isinstance(target, Mapping):
            engine.state.output[CommonKeys.LABEL] = target[CommonKeys.LABEL]
        self.terms.add(getattr(engine.loss_function, "last", {}))

    def report(self, engine: Any) -> None:
        entry = not_finite_entry(engine.network.state_dict())
        if entry is not None:
            raise NotFiniteError(
                f"after epoch {engine.state.epoch} the network holds NaN or infinite values, the first in {entry!r}, though "
                f"every loss was finite: a gradient was not. {KEPT}"
            )
        means = self.terms.take()
        found = {f"loss_{term}": mean for term, mean in means.items()}
        found |= {f"opponent_{name}": mean for name, mean in self.opponents.take().items()}
        self.logged = list(found)
        engine.state.metrics.update(found)
        engine.state.metrics.update({f"weight_{term}": w for term, w in _term_weights(engine.loss_function).items()})
        end_epoch = getattr(engine.loss_function, "end_epoch", None)
        if end_epoch is not None:
            end_epoch(means)


def _refuse_not_finite(engine: Any) -> None:
    loss = engine.state.output[CommonKeys.LOSS]
    if not not_finite(loss.detach()):
        return
    state, terms = engine.state, getattr(engine.loss_function, "last", {})
    parts = ", ".join(f"{term} {float(value):g}" for term, value in terms.items())
    pred = state.output[CommonKeys.PRED]
    outputs = pred if isinstance(pred, list | tuple) else [pred]
    wrong = sum(not_finite(each.detach()) for each in outputs if isinstance(each, Tensor))
    raise NotFiniteError(
        f"the loss is {float(loss.detach().mean()):g}{f' ({parts})' if parts else ''} in epoch {state.epoch}, iteration "
        f"{(state.iteration - 1) % state.epoch_length + 1} of {state.epoch_length}, on {_cases(state.batch)}; of "
        f"the network's outputs {wrong} are NaN or infinite. {KEPT}"
    )


def _cases(batch: Any) -> str:
    """Names of the cases in a batch, as far as its metadata have them."""
    image = batch.get(CommonKeys.IMAGE) if isinstance(batch, Mapping) else None
    names = image.meta.get(ImageMetaKey.FILENAME_OR_OBJ) if isinstance(image, MetaTensor) else None
    found = dict.fromkeys(case_name({ImageMetaKey.FILENAME_OR_OBJ: name}) for name in ensure_tuple(names) if name)
    return ", ".join(found) or "a batch without names"


def _term_weights(loss: Any) -> dict[str, float]:
    """Weights of the terms in this epoch, of the outermost part of a loss that has some."""
    parts: Iterable[Any] = loss.modules() if isinstance(loss, nn.Module) else ()
    return next((dict(part.term_weights) for part in parts if hasattr(part, "term_weights")), {})
