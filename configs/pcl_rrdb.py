# PCL-SR, RRDBNet (23 blocks, 64 channels, growth 32), DIV2K x4: `mim train mmagic configs/pcl_rrdb.py --gpus 1`
# The paper has not tried this network; its settings for the others are used.
_base_ = ["./_base_/runtime.py", "./_base_/div2k_x4.py", "./_base_/pcl_x4.py"]

model = dict(
    generator=dict(
        type="RRDBNet",
        in_channels=3,
        out_channels=3,
        mid_channels=64,
        num_blocks=23,
        growth_channels=32,
        upscale_factor=4,
    )
)
