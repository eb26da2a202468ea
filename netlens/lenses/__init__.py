"""The lenses, in the order in which `netlens --help` lists them. A new lens is one folder and one name here."""

LENSES = ("summary", "kernels", "featuremaps", "gradcam", "gradflow", "check_data")
