"""`python -m torpor.jupyter -f CONNECTION_FILE`: what Jupyter starts."""

from ipykernel.kernelapp import IPKernelApp

from .kernel import TorporKernel

IPKernelApp.launch_instance(kernel_class=TorporKernel)
