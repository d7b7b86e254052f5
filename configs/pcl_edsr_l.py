# PCL-SR, EDSR-L (32 blocks, 256 channels), DIV2K x4: `mim train mmagic configs/pcl_edsr_l.py --gpus 1`
# Its embedding is the one that PCL-F freezes for smaller networks: docs/pcl.md.
_base_ = ["./pcl_edsr.py"]

model = dict(generator=dict(mid_channels=256, num_blocks=32, res_scale=0.1))
