# PCL-SR, EDSR-S (16 blocks, 64 channels), DIV2K x4: `mim train mmagic configs/pcl_edsr.py --gpus 1`
_base_ = ["./_base_/runtime.py", "./_base_/div2k_x4.py", "./_base_/pcl_x4.py"]

model = dict(
    generator=dict(
        type="EDSRNet",
        in_channels=3,
        out_channels=3,
        mid_channels=64,
        num_blocks=16,
        upscale_factor=4,
        res_scale=1,
        rgb_mean=[0.4488, 0.4371, 0.4040],
        rgb_std=[1.0, 1.0, 1.0],
    )
)
