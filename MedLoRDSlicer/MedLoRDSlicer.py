"""The scripted module that Slicer loads: it only wires MedLoRDSlicerLib to Slicer."""

import importlib
import sys

import slicer
from slicer.i18n import tr as _
from slicer.i18n import translate
from slicer.ScriptedLoadableModule import (
    ScriptedLoadableModule,
    ScriptedLoadableModuleLogic,
    ScriptedLoadableModuleTest,
    ScriptedLoadableModuleWidget,
)


class MedLoRDSlicer(ScriptedLoadableModule):
    """What Slicer shows about the module."""

    def __init__(self, parent):
        ScriptedLoadableModule.__init__(self, parent)
        self.parent.title = _("MedLoRD: synthetic CT")
        self.parent.categories = [translate("qSlicerAbstractCoreModule", "Image Synthesis")]
        self.parent.dependencies = ["Segmentations", "Volumes", "Markups", "SubjectHierarchy"]
        self.parent.contributors = ["The MedLoRDSlicer authors"]
        self.parent.helpText = _(
            "Makes a synthetic CT that follows a segmentation, with a latent diffusion model in a process of its "
            "own. For research; not for clinical use."
        )
        self.parent.acknowledgementText = _("The engine is built on MONAI and PyTorch.")
        slicer.app.connect("startupCompleted()", _register_sample_data)


def _register_sample_data():
    """Offer the sample in the Sample Data module, once Slicer's start is over."""
    from MedLoRDSlicerLib.sample_data import register_sample_data

    register_sample_data(__file__)


class MedLoRDSlicerWidget(ScriptedLoadableModuleWidget):
    """Loads the panel; `logic` can be given by a test."""

    def __init__(self, parent=None, logic=None):
        # Before the base class, which calls setup at once when there is no parent.
        self.logic = logic
        self.panel = None
        ScriptedLoadableModuleWidget.__init__(self, parent)

    def setup(self):
        """Build the panel the first time the module is opened."""
        ScriptedLoadableModuleWidget.setup(self)
        from MedLoRDSlicerLib.panel import SynthesisPanel

        widget = slicer.util.loadUI(self.resourcePath("UI/MedLoRDSlicer.ui"))
        self.layout.addWidget(widget)
        widget.setMRMLScene(slicer.mrmlScene)
        self.ui = slicer.util.childWidgetVariables(widget)
        self.logic = self.logic or MedLoRDSlicerLogic()
        self.panel = SynthesisPanel(
            self.ui, self.logic.synthesis, slicer.mrmlScene, self.logic.getParameterNode
        )

    def enter(self):
        """The user opened the module again."""
        if self.panel is not None:
            self.panel.enter()

    def exit(self):
        """The user opened another module."""
        if self.panel is not None:
            self.panel.exit()

    def cleanup(self):
        """Slicer closes, or the module is reloaded."""
        if self.panel is not None:
            self.panel.cleanup()
            self.panel = None

    def onReload(self):
        """Reload the helper packages too, which Slicer leaves as they are."""
        from MedLoRDSlicerLib.engine import shared_engine

        shared_engine().close()
        self.cleanup()
        for name in [name for name in sys.modules if name.split(".")[0] in ("medlord", "MedLoRDSlicerLib")]:
            del sys.modules[name]
        importlib.invalidate_caches()
        ScriptedLoadableModuleWidget.onReload(self)


class MedLoRDSlicerLogic(ScriptedLoadableModuleLogic):
    """Synthesis from the Python console: `MedLoRDSlicerLogic().synthesize(segmentationNode, seed=1)`."""

    def __init__(self, engine=None):
        ScriptedLoadableModuleLogic.__init__(self)
        from MedLoRDSlicerLib.logic import SynthesisLogic

        # Several sets of settings may live in one scene.
        self.isSingletonParameterNode = False
        self.synthesis = SynthesisLogic(engine)

    def synthesize(self, segmentationNode, model="thorax-phantom", **options):
        """Make a synthetic CT, return its volume node; see `MedLoRDSlicerLib.logic.SynthesisLogic`."""
        return self.synthesis.synthesize(segmentationNode, model, **options)

    def start(self, segmentationNode, model="thorax-phantom", **options):
        """Begin a synthesis and return its `Run`; see `MedLoRDSlicerLib.logic.SynthesisLogic`."""
        return self.synthesis.start(segmentationNode, model, **options)

    def check(self, volumeNode, **options):
        """Say how far a CT can be trusted, as table, chart and segmentation; see `SynthesisLogic.check`."""
        return self.synthesis.check(volumeNode, **options)

    def review(self, studyFolder, reader, answers=None):
        """Read a study blinded, in the views; returns its `ReviewSession`. The panel of the module shows the form."""
        from MedLoRDSlicerLib.review.start import start_review

        return start_review(studyFolder, reader, answers)

    def match_segments(self, segmentationNode, model="thorax-phantom"):
        """Say what every segment would be taken for."""
        return self.synthesis.match_segments(segmentationNode, model)

    def describe_model(self, model="thorax-phantom"):
        """Say what a model takes and makes."""
        return self.synthesis.describe_model(model)


class MedLoRDSlicerTest(ScriptedLoadableModuleTest):
    """The self test of the module's Reload and Test button."""

    def setUp(self):
        """Start from an empty scene."""
        slicer.mrmlScene.Clear()

    def runTest(self):
        """Match the segments of a small segmentation; no engine is needed."""
        self.setUp()
        node = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLSegmentationNode")
        node.GetSegmentation().AddEmptySegment("lung", "lung")
        (match,) = MedLoRDSlicerLogic().match_segments(node)
        self.assertEqual((match.structure, match.how), ("lung", "id"))
        self.delayDisplay("Test passed")
