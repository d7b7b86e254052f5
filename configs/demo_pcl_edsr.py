# The small twin of pcl_edsr.py: about a minute on a CPU, on the data of `contrastive-sr prepare demo`.
_base_ = ["./_base_/demo_x4.py"]

model = dict(
    generator=dict(
        type="EDSRNet", in_channels=3, out_channels=3, mid_channels=32, num_blocks=4, upscale_factor=4, res_scale=1
    )
)
