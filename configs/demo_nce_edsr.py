# The small twin of nce_edsr.py: about a minute on a CPU, on the data of `contrastive-sr prepare demo`.
_base_ = ["./demo_pcl_edsr.py", "./_base_/crl_sr.py"]

nce_methods = _base_.nce_methods
nce_methods[0]["layers"] = ["body.1", "body.3"]
model = dict(methods=nce_methods)
