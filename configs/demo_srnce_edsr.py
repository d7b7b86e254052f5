# The small twin of srnce_edsr.py: about a minute on a CPU, on the data of `contrastive-sr prepare demo`.
_base_ = ["./demo_pcl_edsr.py", "./_base_/crl_sr.py"]

model = dict(methods=_base_.srnce_methods)
