# PCL-SR, EDSR-L (32 blocks, 256 channels), DIV2K x4: `mim train mmagic configs/pcl_edsr_l.py --gpus 1`
# Its embedding is the one that PCL-F freezes for smaller networks: docs/pcl.md.
_base_ = ["./_base_/runtime.py", "./_base_/div2k_x4.py", "./_base_/pcl_x4.py"]

model = dict(
    generator=dict(
        type="EDSRNet",
        in_channels=3,
        out_channels=3,
        mid_channels=256,
        num_blocks=32,
        upscale_factor=4,
        res_scale=0.1,
        rgb_mean=[0.4488, 0.4371, 0.4040],
        rgb_std=[1.0, 1.0, 1.0],
    )
)
