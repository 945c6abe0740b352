"""A Jupyter kernel whose variables stay: "Torpor (forever)". Needs `pip install 'torpor[jupyter]'`.

A notebook's machine is found by the notebook's path, so that it is the same one after its server, the computer, or two
years have come and gone. `%torpor use NAME` binds a notebook to a machine by name instead.
"""
