"""CT numbers of the tissues of the phantom, in HU at about 120 kV, and how contrast medium changes them.

Sources. Composition and mass density of body tissues: ICRU Report 44 (1989) and ICRU Report 46 (1992). Their CT
numbers: Schneider, Pedroni and Lomax, Phys Med Biol 41 (1996) 111-124, table 2, and Schneider, Bortfeld and
Schlegel, Phys Med Biol 45 (2000) 459-478, table 1 (adipose tissue about -98 to -70, water 0, skeletal muscle 40 to
50, liver 50 to 60, cartilage 100, skin 70, spongiosa about 260, cortical bone 1500, inflated lung -741). Inflated lung
on inspiratory CT lies lower, near -860 (Kauczor et al., AJR 171 (1998) 1091-1095), and the vertebral spongiosa of
adults between 100 and 260 (Pickhardt et al., Ann Intern Med 158 (2013) 588-595).
Enhancement: coronary CT angiography aims at 300 to 400 HU in the left heart (Abbara et al., J Cardiovasc Comput
Tomogr 10 (2016) 435-449); myocardium 90 to 120 HU in that phase; portal-venous phase blood about 150 HU, liver
100 to 115, spleen 115 to 130 (Bae, Radiology 256 (2010) 32-61).

The cortex of thin bones is given 900 to 1000 HU rather than the 1500 of compact femoral bone: the 1 mm shell of ribs
and vertebrae is porous.
"""

from __future__ import annotations

AIR = -1000.0
SKIN = 60.0
FAT = -102.0
MEDIASTINAL_FAT = -95.0
MUSCLE = 55.0
BREAST_GLAND = 35.0
CORTICAL_BONE = 950.0
CARTILAGE = 105.0
DISC = 85.0
SPINAL_CORD = 38.0
CEREBROSPINAL_FLUID = 8.0
VESSEL_WALL = 45.0
AIRWAY_WALL = 30.0
OESOPHAGUS = 38.0
STOMACH_WALL = 45.0
STOMACH_CONTENT = 22.0
EFFUSION = 8.0
PERICARDIAL_FLUID = 12.0
TABLE_SHELL = -450.0
TABLE_FOAM = -930.0

PHASES = ("native", "arterial", "venous")

# Mean and standard deviation between patients, HU.
BLOOD_LEFT = {"native": (42.0, 4.0), "arterial": (350.0, 18.0), "venous": (150.0, 10.0)}
BLOOD_RIGHT = {"native": (42.0, 4.0), "arterial": (275.0, 18.0), "venous": (150.0, 10.0)}
BLOOD_CAVAL = {"native": (42.0, 4.0), "arterial": (350.0, 20.0), "venous": (148.0, 10.0)}
BLOOD_LOWER_CAVAL = {"native": 40.0, "arterial": 110.0, "venous": 140.0}
MYOCARDIUM = {"native": (45.0, 3.0), "arterial": (110.0, 8.0), "venous": (90.0, 6.0)}
LIVER = {"native": (57.0, 6.0), "arterial": (70.0, 6.0), "venous": (108.0, 7.0)}
SPLEEN = {"native": (50.0, 4.0), "arterial": (115.0, 10.0), "venous": (122.0, 8.0)}
