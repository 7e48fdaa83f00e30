"""The device and the processes of a run, through Hugging Face Accelerate."""

from collections.abc import Iterable, Sequence

import torch
from accelerate import Accelerator
from accelerate.utils import broadcast
from torch import Tensor, nn

from captum_blackbox.black_box import BlackBox
from captum_blackbox.errors import InputError


class Processes:
    """All processes that train one student together; started alone, it is one.

    The student is not wrapped and its ``forward`` is not patched: mixed precision is a context
    around each call, and gradients are summed here. That makes the gradient exactly that of the
    joint batch, also where the shares differ in size, and leaves nothing behind on the student.

    Args:
        mixed_precision: ``"no"``, ``"bf16"``, ``"fp16"``, or ``None`` for what the environment
            says. Accelerate keeps one choice per process.
        device: Where to train; by default where Accelerate says.

    Raises:
        InputError: The precision or the device cannot be had.
    """

    def __init__(self, mixed_precision: str | None, device: torch.device | str | None) -> None:
        if mixed_precision not in (None, "no", "bf16", "fp16"):
            raise InputError(
                f"mixed_precision is 'no', 'bf16', 'fp16' or None, got {mixed_precision!r}"
            )
        try:
            self.accelerator = Accelerator(mixed_precision=mixed_precision, device_placement=False)
        except ValueError as error:
            if "already been initialized" not in str(error):
                raise InputError(f"mixed_precision={mixed_precision!r}: {error}") from error
            raise InputError(
                f"mixed_precision={mixed_precision!r} was asked for, but this process already "
                f"trains with {Accelerator().mixed_precision!r}, and Accelerate keeps one choice "
                "per process; start a new process"
            ) from error
        self.device = self.accelerator.device if device is None else torch.device(device)
        self.mixed_precision: str = self.accelerator.mixed_precision
        if self.device.type != self.accelerator.device.type and (
            self.mixed_precision != "no" or self.count > 1
        ):
            raise InputError(
                f"device={str(self.device)!r} was asked for, but mixed precision and several "
                f"processes run where Accelerate is: on {str(self.accelerator.device)!r}; leave "
                "device out, or set ACCELERATE_USE_CPU=true for the CPU"
            )

    @property
    def number(self) -> int:
        """Which process this is, from 0."""
        return int(self.accelerator.process_index)

    @property
    def count(self) -> int:
        """How many there are."""
        return int(self.accelerator.num_processes)

    def wait(self) -> None:
        """Wait until all processes are here."""
        self.accelerator.wait_for_everyone()

    def sum(self, values: Tensor) -> Tensor:
        """Return the sum over processes of each entry, on the device of ``values``."""
        if self.count == 1:
            return values
        total: Tensor = self.accelerator.reduce(values.to(self.device), "sum")
        return total.to(values.device)

    def equalise(self, tensors: Iterable[Tensor]) -> None:
        """Overwrite the tensors of every process with those of the first."""
        if self.count > 1:
            for tensor in tensors:
                tensor.data.copy_(broadcast(tensor.data.clone(), from_process=0))

    def sum_gradients(self, parameters: Sequence[nn.Parameter], loss: Tensor) -> Tensor:
        """Replace the gradients of every process by their sum; return the sum of the losses."""
        if self.count == 1:
            return loss
        # In one message; the flags say which weights have a gradient in any process.
        flags = loss.new_tensor([each.grad is not None for each in parameters])
        gradients = [
            torch.zeros_like(each) if each.grad is None else each.grad for each in parameters
        ]
        message = torch.cat([loss.reshape(1), flags, *(each.flatten() for each in gradients)])
        sizes = [1, len(flags), *(each.numel() for each in gradients)]
        total, flags, *parts = self.sum(message).split(sizes)
        for parameter, flag, part in zip(parameters, flags.tolist(), parts, strict=True):
            summed = part.view_as(parameter).to(parameter.dtype)
            parameter.grad = summed if flag > 0 else None
        summed_loss: Tensor = total[0]
        return summed_loss

    def asked_since(self, box: BlackBox, before: int) -> int:
        """Return how many images all processes asked since ``box.asked`` was ``before``."""
        return int(self.sum(torch.tensor(box.asked - before)))
