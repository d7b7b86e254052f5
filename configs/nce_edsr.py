# CRL-SR's bidirectional contrast on layers of EDSR-S itself, DIV2K x4: `mim train mmagic configs/nce_edsr.py --gpus 1`
# Network, data and schedule are those of pcl_edsr.py.
_base_ = ["./pcl_edsr.py", "./_base_/crl_sr.py"]

nce_methods = _base_.nce_methods
nce_methods[0]["layers"] = ["body.7", "body.15"]
model = dict(methods=nce_methods)
