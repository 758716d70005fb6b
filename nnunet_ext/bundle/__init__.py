"""What bundle configurations name by `_target_`: handlers, prediction writer, option check."""

from ..training.mixup import Mixup
from .checkpoints import LoadCheckpoint, find_checkpoint, load_checkpoint
from .command_line import guard_command_line
from .distributed import distribute, join_process_group
from .early_stop import validation_score
from .explanations import Explanations, grad_cam
from .gradient_clip import GradientClip
from .inference_dataset import InferenceDataset, default_predictions_dir
from .inferers import ResizedSliceInferer
from .losses import MaskLabelLoss, SegmentationLoss, is_low, make_loss
from .mixed_batches import MixupInferer, MixupLoss
from .model_card import ModelCard, read_model_card
from .next_steps import finetuning_command, prediction_command, scoring_command
from .panels import PredictionPanels
from .postprocessing import DecodePredictiond
from .prediction_writer import PredictionWriter, write_prediction
from .pretrained import initialize, start_of
from .pretraining import RestorationPanels, choose_task, lower, prepare_pretraining, pretrained_file, pretraining_dir
from .progress import Progress, RunSummary, TimeEstimate, ValidationReport
from .schedules import ObserveScore, make_optimizer, make_schedule, warmup_schedule
from .training_data import TrainingData, prepare_data
from .training_state import BestModel, SeedEpoch, TrainingState, better
from .validate_last import ValidateLastEpoch

__all__ = [
    "BestModel",
    "DecodePredictiond",
    "Explanations",
    "GradientClip",
    "InferenceDataset",
    "LoadCheckpoint",
    "MaskLabelLoss",
    "Mixup",
    "MixupInferer",
    "MixupLoss",
    "ModelCard",
    "ObserveScore",
    "PredictionPanels",
    "PredictionWriter",
    "Progress",
    "ResizedSliceInferer",
    "RestorationPanels",
    "RunSummary",
    "SeedEpoch",
    "SegmentationLoss",
    "TimeEstimate",
    "TrainingData",
    "TrainingState",
    "ValidateLastEpoch",
    "ValidationReport",
    "better",
    "choose_task",
    "default_predictions_dir",
    "distribute",
    "find_checkpoint",
    "finetuning_command",
    "grad_cam",
    "guard_command_line",
    "initialize",
    "is_low",
    "join_process_group",
    "load_checkpoint",
    "lower",
    "make_loss",
    "make_optimizer",
    "make_schedule",
    "prediction_command",
    "prepare_data",
    "prepare_pretraining",
    "pretrained_file",
    "pretraining_dir",
    "read_model_card",
    "scoring_command",
    "start_of",
    "validation_score",
    "warmup_schedule",
    "write_prediction",
]
