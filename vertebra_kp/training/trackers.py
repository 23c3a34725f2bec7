"""Where the curves and pictures of a run go: TensorBoard, MLflow or Weights & Biases, behind one protocol."""

import html
import importlib.util
import logging
import os
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, closing, contextmanager
from dataclasses import dataclass
from functools import partial
from typing import Protocol

import numpy as np

from vertebra_kp.config.differences import flat_config
from vertebra_kp.config.schema import Config
from vertebra_kp.config.section import TrackerName
from vertebra_kp.config.spine import LevelConfig, SpineConfig
from vertebra_kp.core.errors import UserError
from vertebra_kp.core.files import read_json, write_json
from vertebra_kp.training.run_folder import RunFolder

log = logging.getLogger(__name__)

PROJECT = "vertebra_kp"  # MLflow's experiment, W&B's project, where the environment names no other
CHARTS = {  # several curves in one chart, in TensorBoard's Custom Scalars
    "training": {
        "losses": ["Multiline", [r"train/(total|heatmap|coordinate|presence|view|slip)"]],
        "learning rates": ["Multiline", [r"lr/.*"]],
    },
    "validation": {
        "error [px]": ["Multiline", [r"val/(mre|median)_px"]],
        "successful detection rate [%]": ["Multiline", [r"val/sdr_.*"]],
    },
}


@dataclass(frozen=True)
class Identity:
    """The run that is logged; ``resume_step`` is the last step that a resumed run keeps, None for a new one."""

    name: str
    folder: RunFolder
    settings: dict[str, str | float | int | bool]
    resume_step: int | None

    @classmethod
    def of(
        cls, config: Config | SpineConfig | LevelConfig, folder: RunFolder, resume_step: int | None
    ) -> "Identity":
        # Lists and None as text: not every tracker takes them.
        flat = flat_config(config).items()
        settings = {key: value if isinstance(value, str | float | int) else str(value) for key, value in flat}
        return cls(config.name, folder, settings, resume_step)

    def id_in(self, tracker: TrackerName) -> str | None:
        """What the tracker calls this run, where it is resumed and was logged there before."""
        return None if self.resume_step is None else self._ids().get(tracker)

    def remember(self, tracker: TrackerName, run_id: str) -> None:
        write_json(self._ids() | {tracker: run_id}, self.folder.tracker_ids)

    def _ids(self) -> dict[str, str]:
        path = self.folder.tracker_ids
        remedy = "remove it, which starts new logs"
        return read_json(path, dict[str, str], remedy=remedy) if path.is_file() else {}


class Backend(Protocol):
    """One log of a run. A resumed run goes on in the same log, from ``resume_step`` on."""

    def scalars(self, step: int, values: Mapping[str, float]) -> None:
        """Curves, by tag (``train/total``, ``lr/backbone_1``)."""

    def text(self, step: int, tag: str, markdown: str) -> None: ...

    def images(self, step: int, pictures: Mapping[str, np.ndarray]) -> None:
        """Pictures ``[H, W, 3]`` of uint8, by tag; all that was logged before is on disk or sent by then."""

    def finish(self, step: int, metrics: Mapping[str, float]) -> None:
        """The run has reached its end with these final figures, by tag."""

    def close(self) -> None:
        """Without ``finish`` before, the run counts as stopped."""


def check_trackers(names: Sequence[TrackerName]) -> None:
    """Raises UserError where the package of a tracker, which is called as the tracker, is not installed."""
    for name in names:
        if importlib.util.find_spec(name) is None:
            raise UserError(
                f"train.trackers: {name} is not installed; pip install 'vertebra_kp[{name}]', "
                f"or take {name} out of the list"
            )


@contextmanager
def open_trackers(names: Sequence[TrackerName], run: Identity) -> Iterator[list[Backend]]:
    """The logs of a run, closed with the block; raises UserError where one cannot log."""
    with ExitStack() as opened:  # where one cannot be opened, the others are closed
        yield [opened.enter_context(closing(BACKENDS[name](run))) for name in dict.fromkeys(names)]


class TensorBoard:
    """Events in the run folder; those after ``resume_step`` are hidden.

    A thread of TensorBoard's writes them. Where it cannot, the next call raises UserError.
    """

    def __init__(self, run: Identity) -> None:
        # Imported here: it takes a second, and only the main process of a training needs it.
        from torch.utils.tensorboard import SummaryWriter

        self._folder = run.folder.tensorboard
        self._hook_before, threading.excepthook = threading.excepthook, self._thread_failed
        purge_step = None if run.resume_step is None else run.resume_step + 1
        self._writer = SummaryWriter(str(run.folder.tensorboard), purge_step=purge_step)
        self._writer.add_custom_scalars(CHARTS)
        self._settings = run.settings

    def scalars(self, step: int, values: Mapping[str, float]) -> None:
        with self._checked():
            for tag, value in values.items():
                self._writer.add_scalar(tag, value, step)

    def text(self, step: int, tag: str, markdown: str) -> None:
        with self._checked():
            self._writer.add_text(tag, markdown, step)
            self._writer.flush()

    def images(self, step: int, pictures: Mapping[str, np.ndarray]) -> None:
        with self._checked():
            for tag, picture in pictures.items():
                self._writer.add_image(tag, picture, step, dataformats="HWC")
            self._writer.flush()

    def finish(self, step: int, metrics: Mapping[str, float]) -> None:
        """Under HParams in this very run: ``add_hparams`` opens a second."""
        from torch.utils.tensorboard.summary import hparams

        with self._checked():
            for summary in hparams(self._settings, dict(metrics)):
                self._writer._get_file_writer().add_summary(summary, step)
        self.scalars(step, metrics)

    def close(self) -> None:
        try:
            with self._checked():
                self._writer.close()
        finally:
            threading.excepthook = self._hook_before

    @contextmanager
    def _checked(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            fault = error.strerror or error
            raise UserError(f"{self._folder} takes no more curves ({fault}); make room, and resume") from error

    def _thread_failed(self, failure: threading.ExceptHookArgs) -> None:
        """No traceback where TensorBoard's thread cannot write: the next call raises that error."""
        of_tensorboard = type(failure.thread).__module__.startswith("tensorboard.")
        if not (of_tensorboard and isinstance(failure.exc_value, OSError)):
            self._hook_before(failure)


class Mlflow:
    """A run of MLflow, in files of the run folder or where ``MLFLOW_TRACKING_URI`` says."""

    def __init__(self, run: Identity) -> None:
        os.environ.setdefault("MLFLOW_ALLOW_FILE_STORE", "true")  # MLflow 3 asks for this consent to plain files
        os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
        import mlflow

        uri = os.environ.get("MLFLOW_TRACKING_URI") or run.folder.mlflow.resolve().as_uri()
        self._api, self._failure = mlflow, mlflow.exceptions.MlflowException
        self._status, self._failed = "KILLED", False
        self._last_steps: dict[str, int] = {}  # of each curve when the run was resumed
        self._resumed = (known := run.id_in("mlflow")) is not None
        try:
            mlflow.set_tracking_uri(uri)
            mlflow.set_experiment(os.environ.get("MLFLOW_EXPERIMENT_NAME", PROJECT))
            tags = {"run_dir": str(run.folder.path.resolve())}
            self._id = mlflow.start_run(known, run_name=run.name, tags=tags).info.run_id
            if not self._resumed:
                mlflow.log_params(run.settings)
        except self._failure as error:
            raise UserError(
                f"train.trackers: MLflow cannot log the run in {uri} ({error}); correct MLFLOW_TRACKING_URI, in a "
                "resumed run to what it was, or take mlflow out of the list"
            ) from error
        run.remember("mlflow", self._id)

    def scalars(self, step: int, values: Mapping[str, float]) -> None:
        self._send(lambda: self._api.log_metrics(self._new(step, values), step))

    def _new(self, step: int, values: Mapping[str, float]) -> dict[str, float]:
        """Without what a resumed run repeats: MLflow forgets no value."""
        for tag in values.keys() - self._last_steps.keys() if self._resumed else ():
            history = self._api.MlflowClient().get_metric_history(self._id, tag)
            self._last_steps[tag] = max((metric.step for metric in history), default=-1)
        return {tag: value for tag, value in values.items() if step > self._last_steps.get(tag, -1)}

    def text(self, step: int, tag: str, markdown: str) -> None:
        self._send(lambda: self._api.log_text(markdown, f"{tag}/{step:08d}.md"))

    def images(self, step: int, pictures: Mapping[str, np.ndarray]) -> None:
        for tag, picture in pictures.items():
            self._send(partial(self._api.log_image, picture, key=tag, step=step))

    def finish(self, step: int, metrics: Mapping[str, float]) -> None:
        self.scalars(step, metrics)
        self._status = "FINISHED"

    def close(self) -> None:
        self._send(lambda: self._api.end_run(self._status))

    def _send(self, call: Callable[[], object]) -> None:
        """A server that goes away ends this log, not the training."""
        try:
            if not self._failed:
                call()
        except self._failure as error:
            self._failed = True
            log.warning("MLflow: %s; nothing more of this training is logged there", error)


class Wandb:
    """A run of Weights & Biases; ``WANDB_MODE=offline`` keeps it in the run folder, for ``wandb sync``."""

    def __init__(self, run: Identity) -> None:
        os.environ.setdefault("WANDB_ERROR_REPORTING", "false")
        import wandb

        self._api, self._exit_code = wandb, 1
        try:
            self._run = wandb.init(
                project=os.environ.get("WANDB_PROJECT", PROJECT),
                name=run.name,
                id=run.id_in("wandb"),
                resume="allow",
                dir=str(run.folder.path),
                config=run.settings,
                settings=wandb.Settings(console="off"),
            )
        except wandb.Error as error:
            raise UserError(
                f"train.trackers: W&B cannot log the run ({error}); log in by `wandb login`, set WANDB_MODE to "
                "offline, or take wandb out of the list"
            ) from error
        run.remember("wandb", self._run.id)
        # W&B's own step only counts up; a resumed run goes back to its checkpoint.
        self._run.define_metric("step")
        self._run.define_metric("*", step_metric="step")

    def scalars(self, step: int, values: Mapping[str, float]) -> None:
        self._run.log({"step": step, **values})

    def text(self, step: int, tag: str, markdown: str) -> None:
        page = self._api.Html(f"<pre>{html.escape(markdown)}</pre>")
        self._run.log({"step": step, f"{tag}_settings": page})

    def images(self, step: int, pictures: Mapping[str, np.ndarray]) -> None:
        shown = {tag: self._api.Image(picture) for tag, picture in pictures.items()}
        self._run.log({"step": step, **shown})

    def finish(self, step: int, metrics: Mapping[str, float]) -> None:
        self.scalars(step, metrics)
        self._exit_code = 0

    def close(self) -> None:
        self._run.finish(exit_code=self._exit_code)


BACKENDS: dict[TrackerName, Callable[[Identity], Backend]] = {
    "tensorboard": TensorBoard,
    "mlflow": Mlflow,
    "wandb": Wandb,
}
