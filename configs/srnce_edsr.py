# CRL-SR's conditional contrast on EDSR-S, DIV2K x4: `mim train mmagic configs/srnce_edsr.py --gpus 1`
# Network, data and schedule are those of pcl_edsr.py.
_base_ = ["./pcl_edsr.py", "./_base_/crl_sr.py"]

model = dict(methods=_base_.srnce_methods)
