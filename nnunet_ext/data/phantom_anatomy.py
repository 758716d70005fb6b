"""The organs of the thorax phantom: where they lie, how they vary, what they look like in CT.

Positions are in mm of a mean patient: x to the left, y to posterior, z to superior, (0, 0, 0) in the middle of the
chest at the height of the tracheal bifurcation. All numbers are round figures of adult anatomy, not measurements.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np

from .phantom_canvas import FAR_MM, Canvas, smooth_union

LABELS = {"background": 0, "esophagus": 1, "heart": 2, "trachea": 3, "aorta": 4}


@dataclass(frozen=True)
class Patient:
    """What differs between patients beside the bending of the body.

    Attributes:
        half_width_mm: Half the width of the chest.
        half_depth_mm: Half the depth of the chest.
        fat_mm: Thickness of the fat under the skin.
        diaphragm_mm: Height of the diaphragm's domes.
        heart_scale: Size of the heart relative to the mean.
        muscle_hu: Value of muscle; heart muscle and esophagus lie within a few HU of it.
        blood_hu: Value of blood in the heart.
        aorta_hu: Value of blood in the aorta.
        lung_hu: Value of lung tissue.
    """

    half_width_mm: float
    half_depth_mm: float
    fat_mm: float
    diaphragm_mm: float
    heart_scale: float
    muscle_hu: float
    blood_hu: float
    aorta_hu: float
    lung_hu: float


def draw_patient(rng: np.random.Generator) -> Patient:
    """Return a random patient."""
    muscle = rng.uniform(45, 60)
    blood = muscle + rng.uniform(0, 35)
    return Patient(
        half_width_mm=rng.uniform(148, 162),
        half_depth_mm=rng.uniform(98, 112),
        fat_mm=rng.uniform(8, 18),
        diaphragm_mm=rng.uniform(-118, -100),
        heart_scale=rng.uniform(0.9, 1.1),
        muscle_hu=muscle,
        blood_hu=blood,
        aorta_hu=blood + rng.uniform(-10, 40),
        lung_hu=rng.uniform(-880, -820),
    )


def draw_thorax(canvas: Canvas, patient: Patient, rng: np.random.Generator) -> None:
    """Draw the whole chest, from the table to the esophagus; what is drawn later lies on top."""
    cavity = _chest_wall(canvas, patient)
    heart = _heart_surface(canvas, patient)
    course, radii = _aorta_course(rng)
    aorta = canvas.tube(course, radii, step_mm=6)
    _lungs(canvas, patient, cavity, smooth_union(heart, aorta, 6), rng)
    _below_diaphragm(canvas, patient, cavity, rng)
    _skeleton(canvas, cavity, patient, rng)
    _heart(canvas, patient, heart, rng)
    _neighbours(canvas, patient, rng)
    _esophagus(canvas, patient, rng)
    canvas.paint(aorta, patient.aorta_hu, LABELS["aorta"])
    _airways(canvas, rng)


def _chest_wall(canvas: Canvas, patient: Patient) -> np.ndarray:
    """Draw table, skin, fat and muscle; return the signed distance to the chest cavity, which is filled with fat."""
    table = np.abs(canvas.y - np.float32(patient.half_depth_mm + 9) + canvas.x**2 / 2200) - 6
    canvas.paint(np.maximum(table, np.abs(canvas.x) - 165), -280)
    body = _outline(canvas.x, canvas.y, patient.half_width_mm, patient.half_depth_mm)
    canvas.paint(body, 10)
    canvas.paint(body + 3, -100)
    flank = np.float32(patient.fat_mm) * (1 + np.float32(0.35) * np.abs(canvas.x) / 150)
    canvas.paint(body + flank, patient.muscle_hu)
    height = np.clip((canvas.z - 20) / 90, 0, 0.97)
    narrowing = np.sqrt(1 - height**2)
    width = np.float32(patient.half_width_mm - patient.fat_mm - 22) * narrowing
    depth = np.float32(patient.half_depth_mm - 0.5 * patient.fat_mm - 19) * (np.float32(0.25) + 0.75 * narrowing)
    cavity = _outline(canvas.x, canvas.y + 4, width, depth)
    canvas.paint(cavity, -90)
    return cavity


def _outline(x: np.ndarray, y: np.ndarray, half_width: Any, half_depth: Any) -> np.ndarray:
    """Return the radial distance in mm to a superellipse of exponent 2.5 in the axial plane, negative inside."""
    u, v = np.abs(x) / half_width, np.abs(y) / half_depth
    level = np.maximum((u * u * np.sqrt(u) + v * v * np.sqrt(v)) ** np.float32(0.4), np.float32(0.05))
    return np.sqrt(x * x + y * y) * (1 - 1 / level) - np.where(level < 0.1, FAR_MM, np.float32(0))


def _lungs(canvas: Canvas, patient: Patient, cavity: np.ndarray, pushing: np.ndarray, rng: np.random.Generator) -> None:
    """Draw both lungs: the cavity without the mediastinum and without what pushes into them, then their vessels."""
    half_width = 15 + 13 * np.exp(-(((canvas.y - 12) / 42) ** 2))
    mediastinum = np.abs(canvas.x - np.float32(rng.uniform(-2, 4))) - half_width
    lung = np.maximum(np.maximum(cavity + 3, -mediastinum), 3 - pushing)
    dependent = np.float32(0.35) * canvas.y  # the lower lung of a lying patient is denser
    canvas.paint(lung, np.float32(patient.lung_hu) + dependent)
    vessels = np.full(canvas.hu.shape, FAR_MM, np.float32)
    for side in (-1, 1):
        for _ in range(11):
            hilum = np.array([side * 32, 12, -14]) + rng.normal(0, 5, 3)
            heading = np.array([side * rng.uniform(0.25, 1), rng.normal(0, 0.7), rng.normal(-0.15, 0.8)])
            tip = hilum + heading / np.linalg.norm(heading) * rng.uniform(55, 95)
            bow = (hilum + tip) / 2 + rng.normal(0, 7, 3)
            vessel = canvas.tube([hilum, bow, tip], [rng.uniform(3, 4.5), 2.2, 1.0], step_mm=16)
            np.minimum(vessels, vessel, out=vessels)
    canvas.paint(np.maximum(vessels, lung + 2), patient.muscle_hu - 10)


def _below_diaphragm(canvas: Canvas, patient: Patient, cavity: np.ndarray, rng: np.random.Generator) -> None:
    """Draw the liver under the right dome, spleen and stomach with its air under the left one."""
    dome = 34 * (1 - ((np.abs(canvas.x) - 62) / 75) ** 2 - ((canvas.y + 5) / 95) ** 2)
    dome -= np.where(canvas.x > 0, np.float32(9), np.float32(0))
    under = np.maximum(canvas.z - np.float32(patient.diaphragm_mm) - dome, cavity + 2) * np.float32(0.85)
    canvas.paint(under, -95)
    canvas.paint(np.maximum(under + 2, canvas.x - 30), patient.muscle_hu + rng.uniform(5, 35))
    spleen = canvas.ellipsoid((78, 35, patient.diaphragm_mm - 8), (38, 32, 42))
    canvas.paint(np.maximum(under + 2, spleen), patient.muscle_hu + rng.uniform(-5, 25))
    stomach = canvas.ellipsoid((58, -18, patient.diaphragm_mm - 8), (36, 36, 38))
    canvas.paint(np.maximum(under + 2, stomach), patient.muscle_hu - 15)
    canvas.paint(np.maximum(under + 6, np.maximum(stomach + 5, canvas.y + rng.uniform(15, 30))), -960)


def _skeleton(canvas: Canvas, cavity: np.ndarray, patient: Patient, rng: np.random.Generator) -> None:
    """Draw ribs, breastbone, shoulder blades and spine: hard rims around softer marrow."""
    x, y, z = canvas.x, canvas.y, canvas.z
    pitch = rng.uniform(25, 29)
    turn = (z - np.float32(0.4) * y + np.float32(rng.uniform(0, pitch))) % pitch - pitch / 2
    ribs = (np.sqrt(((cavity - 5) / 4) ** 2 + (turn / 6.5) ** 2) - 1).astype(np.float32) * 4
    ribs = np.maximum(ribs, 12 - np.abs(x))
    cartilage = y < -0.62 * patient.half_depth_mm
    canvas.paint(ribs, np.where(cartilage, np.float32(110), np.float32(480)))
    canvas.paint(ribs + 2, np.where(cartilage, np.float32(95), np.float32(230)))
    front = -float(patient.half_depth_mm - 0.5 * patient.fat_mm - 19) - 9
    breastbone = np.maximum(canvas.ellipsoid((0, front, 0), (19, 6, 400)), np.abs(z + 10) - 75)
    canvas.paint(breastbone, 330)
    canvas.paint(breastbone + 3, 140)
    for side in (-1, 1):
        blade = canvas.ellipsoid((side * 92, 68, 45), (36, 5, 62), turn_deg=-side * 38)
        canvas.paint(blade, 420)
        canvas.paint(blade + 3, 210)
    height = rng.uniform(22, 26)
    within = (z + np.float32(rng.uniform(0, height))) % height - height / 2
    spine_y = 54
    vertebra = canvas.ellipsoid((0, spine_y, 0), (17, 15, 4000))
    for side in (-1, 1):
        process = canvas.ellipsoid((side * 19, spine_y + 19, 0), (16, 5, 4000), turn_deg=side * 22)
        canvas.paint(np.maximum(process, np.abs(within) - 7), 380)
    spinous = canvas.ellipsoid((0, spine_y + 34, 0), (4, 11, 4000))
    canvas.paint(np.maximum(spinous, np.abs(within) - 8), 380)
    canvas.paint(canvas.ellipsoid((0, spine_y + 22, 0), (13, 12, 4000)), 350)
    canvas.paint(canvas.ellipsoid((0, spine_y + 21, 0), (9, 8, 4000)), 25)
    canvas.paint(vertebra, np.where(np.abs(within) > height / 2 - 2.5, np.float32(85), np.float32(420)))
    canvas.paint(np.maximum(vertebra + 3, np.abs(within) - np.float32(height / 2 - 4)), rng.uniform(140, 230))


def _heart_surface(canvas: Canvas, patient: Patient) -> np.ndarray:
    s = patient.heart_scale
    ventricles = canvas.ellipsoid((24, -30, -70), (52 * s, 36 * s, 42 * s), turn_deg=28)
    atria = canvas.ellipsoid((2, -4, -48), (44 * s, 27 * s, 31 * s))
    return smooth_union(ventricles, atria, 12)


def _heart(canvas: Canvas, patient: Patient, surface: np.ndarray, rng: np.random.Generator) -> None:
    canvas.paint(surface, patient.muscle_hu + rng.uniform(-8, 8), LABELS["heart"])
    s = patient.heart_scale
    chambers = (
        ((38, -24, -74), (25 * s, 15 * s, 26 * s), 28),
        ((8, -46, -70), (28 * s, 10 * s, 28 * s), 28),
        ((6, 6, -44), (30 * s, 12 * s, 18 * s), 0),
        ((-26, -12, -54), (14 * s, 18 * s, 22 * s), 0),
    )
    for centre, radii, turn in chambers:
        chamber = canvas.ellipsoid(np.array(centre) + rng.normal(0, 2, 3), radii, turn)
        canvas.paint(np.maximum(chamber, surface + 3), patient.blood_hu + rng.uniform(-6, 6))


def _aorta_course(rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """Return points and radii from the aortic root over the arch down in front of the spine."""
    course = np.array(
        [
            (2, -20, -42),
            (-16, -26, -18),
            (-18, -24, 10),
            (-6, -12, 34),
            (12, 10, 40),
            (24, 32, 26),
            (26, 42, 0),
            (24, 43, -60),
            (14, 38, -120),
            (6, 32, -190),
        ],
        float,
    )
    course += rng.normal(0, 2.2, course.shape)
    course[3:6, 2] += rng.uniform(-6, 8)
    radii = np.array([15, 16, 16, 15, 14, 13, 12.5, 12, 11.5, 11]) * rng.uniform(0.88, 1.12)
    return course, radii


def _neighbours(canvas: Canvas, patient: Patient, rng: np.random.Generator) -> None:
    """Draw what lies beside the labelled organs and looks like them: vessels and lymph nodes."""
    blood = patient.blood_hu + rng.uniform(-5, 15)
    trunk = canvas.tube(
        [(20, -30, -38), (20, -24, -18), (12, -6, -8), (-14, 6, -10), (-48, 12, -16)], [13, 13, 11, 9, 6]
    )
    left = canvas.tube([(16, -10, -8), (32, 8, -2), (50, 16, -6)], [11, 9, 6])
    canvas.paint(np.minimum(trunk, left), blood)
    canvas.paint(canvas.tube([(-28, -14, -40), (-30, -20, 0), (-27, -16, 50), (-34, -18, 130)], [10, 9, 9, 8]), blood)
    branches = ([(-8, -14, 38), (-18, -6, 75), (-30, -2, 150)], [(6, 2, 44), (14, 2, 80), (22, 4, 150)])
    for branch in (*branches, [(16, 16, 42), (26, 14, 75), (36, 14, 150)]):
        canvas.paint(canvas.tube(np.array(branch) + rng.normal(0, 2, 3), [6.5, 5, 4.5]), patient.aorta_hu)
    canvas.paint(canvas.tube([(-12, 40, -190), (-13, 42, -60), (-14, 40, 0)], 4), blood)
    for _ in range(5):
        place = (rng.uniform(-22, 26), rng.uniform(5, 40), rng.uniform(-60, 60))
        canvas.paint(canvas.ellipsoid(place, rng.uniform(4, 8, 3)), patient.muscle_hu + rng.uniform(-12, 8))


def _esophagus(canvas: Canvas, patient: Patient, rng: np.random.Generator) -> None:
    """Draw the esophagus, collapsed but for some pockets of air."""
    course = np.array(
        [(3, 28, 150), (3, 29, 80), (6, 31, 40), (5, 31, 0), (1, 31, -50), (6, 27, -95), (20, 14, -130), (38, 0, -170)],
        float,
    )
    course += rng.normal(0, 1.8, course.shape) * (1, 0.7, 0)
    radii = rng.uniform(5.8, 8.2) * rng.uniform(0.85, 1.15, len(course))
    wall = canvas.tube(course, radii, flat=rng.uniform(1.1, 1.5), step_mm=6)
    canvas.paint(wall, patient.muscle_hu + rng.uniform(-10, 4), LABELS["esophagus"])
    for _ in range(rng.integers(0, 4)):
        top = rng.uniform(-80, 80)
        points = [
            np.array([np.interp(-z, -course[:, 2], course[:, axis]) for axis in range(3)]) for z in (top, top - 14)
        ]
        pocket = canvas.tube(points, rng.uniform(1.5, 3.5))
        canvas.paint(np.maximum(pocket, wall + 2), rng.uniform(-900, -500))


def _airways(canvas: Canvas, rng: np.random.Generator) -> None:
    """Draw trachea and main bronchi; as in SegTHOR, the label ends 2 cm below the bifurcation."""
    fork = np.array([rng.normal(-1, 2), 14 + rng.normal(0, 1.5), rng.normal(0, 3)])
    radius = rng.uniform(7.5, 9.5)
    trachea = canvas.tube([(0, 8, 150), (0, 11, 60), tuple(fork)], radius)
    offsets = np.array([[(0, 0, 0), (-18, 4, -18), (-46, 6, -38)], [(0, 0, 0), (20, 4, -17), (54, 10, -32)]])
    right, left = (canvas.tube(fork + offset, [radius, 6.2, 3.5]) for offset in offsets)
    airways = smooth_union(trachea, np.minimum(right, left), 3)
    canvas.paint(airways - 2, rng.uniform(10, 50))
    canvas.paint(airways, -985)
    inside = (airways < 1) & (canvas.z > fork[2] - 20)
    canvas.label[inside] = LABELS["trachea"]
