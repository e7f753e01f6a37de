"""All geometry of one phantom, and the order in which a block of slices is painted."""

from __future__ import annotations

import numpy as np

from ..volumes import Grid
from . import labels, tissues
from .abdomen import paint_abdomen
from .chestwall import chest_wall, paint_soft_wall, paint_table, paint_wall_fat_planes
from .findings import paint_ground_glass, paint_nodules, paint_pleural_effusion
from .frame import BodyFrame
from .heart import Heart, HeartPose
from .lungs import LungShape, lung_distance
from .mediastinum import HILUM, GreatVessels, outline_distance
from .parameters import PhantomParameters
from .rasterise import Block
from .shapes import coverage
from .skeleton import RibCage, Spine, paint_shoulder_girdle, paint_sternum
from .vessels import Trees

COARSE_MM = 8.0


class Scene:
    """Geometry of a phantom, ready to be evaluated on any block of voxels.

    A coarse evaluation (8 mm) comes first: it gives the points that the lung vessels must reach and the level of
    pleural fluid that holds the wanted volume. `grow_trees=False` leaves lung vessels and bronchi out (they have no
    part in the labelmap): faster, for measurements.
    """

    def __init__(self, parameters: PhantomParameters, grow_trees: bool = True):
        p = self.parameters = parameters
        self.frame, self.wall = BodyFrame(p), chest_wall(p)
        self.ribs, self.lungs = RibCage(p), LungShape(p)
        self.pose = HeartPose(p, self.lungs.tendon)
        self.great_vessels = GreatVessels(self.frame, self.pose, p)
        grid = self._coarse_grid()
        block = Block(grid, self.frame, 1, grid.shape[2] - 1)
        parts = self._geometry(block)
        if p.pleural_effusion is not None:
            self._find_fluid_level(block, parts)
            parts = self._geometry(block)
        rng = np.random.default_rng([p.seed, 7002])
        inside = np.flatnonzero(parts["lung"] < -3.0)
        k, j, i = np.unravel_index(inside, block.counts)
        ijk = np.stack([i, j, k + block.first], 1) + rng.uniform(-0.5, 0.5, (len(inside), 3))
        self.lung_points = ijk @ grid.affine[:3, :3].T + grid.affine[:3, 3]
        self.lung_depths = parts["lung"].ravel()[inside]
        self.trees = self._grow(rng, block, inside) if grow_trees else None

    def _coarse_grid(self) -> Grid:
        extent = np.array([310.0, 240.0, 360.0]) * self.frame.scale + 24
        shape = np.ceil(extent / COARSE_MM).astype(int)
        center = self.frame.to_world([[0.0, 0.0, -28.0]])[0]
        return Grid.centered(tuple(int(n) for n in shape), (COARSE_MM,) * 3, tuple(center))

    def _find_fluid_level(self, block, parts) -> None:
        effusion = self.parameters.pleural_effusion
        sign = 1 if effusion.side == "right" else -1
        measure = self.lungs.fluid_measure(block.x, block.y, block.z, parts["depth"])
        values = np.sort(measure[(parts["lung"] < 0) & (block.x * sign > 0)])[::-1]
        count = min(int(effusion.volume_ml * 1000 / COARSE_MM**3), int(0.8 * len(values)))
        self.lungs.fluid_level = (sign, float(values[count]) if len(values) else 1e6)

    def _grow(self, rng, block, inside) -> Trees:
        x, y, z = (v.ravel()[inside] for v in (block.x, block.y, block.z))
        oblique, horizontal = self.lungs.fissures(x, y, z)
        lobe = np.where(x > 0, np.where(oblique > 0, 4, np.where(horizontal > 0, 3, 2)), oblique > 0)
        litres = COARSE_MM**3 / 1e6
        groups = {
            name: (self.lung_points[lobe == n], float((lobe == n).sum()) * litres)
            for n, name in enumerate(labels.LOBES)
        }
        roots = {side: self.frame.to_world(point[None])[0] for side, point in HILUM.items()}
        size = float(self.frame.scale.mean()) ** 0.5
        return Trees(rng, groups, roots, size, 4.6 * size)

    def _geometry(self, block: Block) -> dict:
        """Distances that several structures share."""
        index, column, radius = self.wall.locate(block.x, block.y, block.z)
        depth = self.wall.depth(index, radius)
        turn = self.wall.turn[column]
        dome = self.lungs.diaphragm(block.x, block.y, depth, turn)
        spine = Spine(self.parameters)
        spine_box, spine_distance = spine.locate(block)
        heart = Heart(block, self.pose, self.parameters)
        _, outline = outline_distance(block, self.great_vessels, heart, spine_distance, spine_box)
        cavity = self.lungs.cavity(block.x, block.y, block.z, depth, turn, dome)
        lung = cavity if outline is None else lung_distance(cavity, outline)
        fluid = None
        if self.lungs.fluid_level is not None:
            sign, level = self.lungs.fluid_level
            above = self.lungs.fluid_measure(block.x, block.y, block.z, depth) - np.float32(level)
            above = np.where(block.x * sign > 0, above, np.float32(-100))
            fluid = np.maximum(lung, -above)
            lung = np.maximum(lung, above)
        return {
            "index": index,
            "column": column,
            "radius": radius,
            "depth": depth,
            "turn": turn,
            "dome": dome,
            "spine": spine,
            "spine_distance": spine_distance,
            "spine_box": spine_box,
            "heart": heart,
            "lung": lung,
            "fluid": fluid,
        }

    def paint(self, k_start: int, k_stop: int, grid: Grid) -> Block:
        """A painted block of the slices k_start to k_stop of a grid, with one more slice on both sides."""
        p, everything = self.parameters, (slice(None),) * 3
        block = Block(grid, self.frame, k_start, k_stop)
        g = self._geometry(block)
        depth, turn, lung = g["depth"], g["turn"], g["lung"]
        paint_table(block, p)
        muscle, skin = paint_soft_wall(block, self.wall, g["index"], g["radius"], p)
        paint_wall_fat_planes(block, depth, turn, muscle)
        neck = np.maximum(depth + np.float32(1), block.z - np.float32(128))
        block.paint(everything, neck, tissues.MEDIASTINAL_FAT)
        paint_abdomen(block, self.lungs, depth, g["dome"], (g["spine_box"], g["spine_distance"]), p)
        fraction = coverage(lung)
        if g["fluid"] is not None:
            paint_pleural_effusion(block, g["fluid"])
        block.paint_fraction(everything, fraction, self.lungs.density(block))
        self.lungs.paint_lobes(block, lung)
        paint_ground_glass(block, p, fraction, lung)
        self._paint_trees(block, lung, fraction)
        self.ribs.paint(block, self.wall, depth, g["column"], g["radius"], p)
        paint_sternum(block, depth, p)
        paint_shoulder_girdle(block, depth, turn, skin, p)
        g["spine"].paint(block, skin)
        g["heart"].paint()
        self.great_vessels.paint(block, p)
        paint_nodules(block, p, lung)
        self._tidy(block)
        return block

    def _paint_trees(self, block, lung, lung_fraction) -> None:
        if self.trees is None:
            return
        everything, p = (slice(None),) * 3, self.parameters
        inside_lung = lung < 0
        wall, _ = block.tube_fraction(self.trees.bronchial_walls)
        wall *= lung_fraction
        block.paint_fraction(everything, wall, tissues.AIRWAY_WALL)
        lumen, inside = block.tube_fraction(self.trees.bronchi)
        lumen *= lung_fraction
        block.paint_fraction(
            everything, lumen, tissues.AIR, inside & inside_lung, None, labels.FLAGS["lung_bronchi"]
        )
        blood, inside = block.tube_fraction(self.trees.vessels)
        blood *= lung_fraction
        hu = 0.5 * (p.blood_left_hu + p.blood_right_hu)
        block.paint_fraction(everything, blood, hu, inside & inside_lung, None, labels.FLAGS["lung_vessels"])

    @staticmethod
    def _tidy(block) -> None:
        """Effusions and the labelmap do not overlap; the label painted later wins. All lies within the body."""
        effusions = labels.FLAGS["pleural_effusion"] | labels.FLAGS["pericardial_effusion"]
        np.bitwise_and(block.flags, np.uint8(255 - effusions), out=block.flags, where=block.label > 0)
        np.bitwise_or(block.flags, np.uint8(1), out=block.flags, where=block.label > 0)
