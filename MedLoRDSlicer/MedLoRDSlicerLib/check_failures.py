"""Why a check failed, in the words of the panel: the engine's sentences name options of the command line."""

from __future__ import annotations

from dataclasses import dataclass

from medlord.errors import InputError, InsufficientMemoryError, MedlordError, WeightsError

from .check_choices import is_total_segmentator
from .translation import _

# What tells the engine's sentences apart (medlord.evaluation.total_segmentator.process); a test compares them.
_MISSING_WEIGHTS, _FAILED_DOWNLOAD = "--download-weights", "could not be downloaded"
_REFUSED_KEY, _ANY_KEY = "refused the licence key", "licence key"
_OTHER_PYTHON = "--segmenter-python"


@dataclass(frozen=True)
class CheckFailure:
    """What to show: the whole sentence, and whether a download of weights, once agreed to, can help."""

    text: str
    can_download: bool = False


def failure_in_words(error: MedlordError, segmenter: str) -> CheckFailure:
    """The failure of a check by `segmenter` for somebody who has the panel in front of them.

    Sentences that name nothing of the command line are handed on.
    """
    said = str(error)
    if isinstance(error, WeightsError):
        found = _weights(said)
    elif is_total_segmentator(segmenter):
        found = _total_segmentator(error, said)
    else:
        found = None
    return found or CheckFailure(_("The check failed: {reason}").format(reason=said))


def _weights(said: str) -> CheckFailure | None:
    if _MISSING_WEIGHTS in said:
        return CheckFailure(
            _(
                "TotalSegmentator's weights for this task are not on this computer. Choose a folder that has them "
                "under Weights folder, or agree to their download by TotalSegmentator from "
                "github.com/wasserth/TotalSegmentator with the button below: some 100 to 250 MB per model, five models "
                "for the whole body, Apache-2.0 but for tasks that need a licence key."
            ),
            can_download=True,
        )
    if _FAILED_DOWNLOAD in said:
        return CheckFailure(
            _(
                "TotalSegmentator's weights could not be downloaded: {reason}. Check the network and try again, or "
                "choose a folder that has them under Weights folder."
            ).format(reason=_reason_in(said)),
            can_download=True,
        )
    if _REFUSED_KEY in said:
        return CheckFailure(
            _(
                "TotalSegmentator refused the licence key, or its server that checks keys could not be reached. Look "
                "whether the key is complete and still valid, correct it under Licence key, and check again."
            )
        )
    if _ANY_KEY in said:
        return CheckFailure(
            _(
                "This task of TotalSegmentator needs a licence key, free of charge for non-commercial use: get one at "
                "backend.totalsegmentator.com/license-academic, enter it under Licence key, and check again. It is "
                "passed to TotalSegmentator only."
            )
        )
    return None


def _total_segmentator(error: MedlordError, said: str) -> CheckFailure | None:
    if isinstance(error, InputError) and _OTHER_PYTHON in said:
        return CheckFailure(
            _(
                "The Python that runs the engine does not have TotalSegmentator. Install the package TotalSegmentator "
                "there, or choose a Python that has it under Engine and this computer; the HU rules need no package."
            )
        )
    if _OTHER_PYTHON in said:
        return CheckFailure(
            _(
                "TotalSegmentator cannot start in the Python that runs the engine: {reason}. Install it again there, "
                "or choose another Python under Engine and this computer."
            ).format(reason=_reason_in(said))
        )
    if isinstance(error, InsufficientMemoryError):
        return CheckFailure(
            _(
                "TotalSegmentator ran out of memory. Choose TotalSegmentator, fast, or the HU rules, or close other "
                "programs and check again."
            )
        )
    return None


def _reason_in(said: str) -> str:
    """What stands between the place where it happened and what the command line can do."""
    return said.partition(": ")[2].partition(". ")[0]
