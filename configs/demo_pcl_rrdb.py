# The small twin of pcl_rrdb.py: about a minute on a CPU, on the data of `contrastive-sr prepare demo`.
_base_ = ["./_base_/demo_x4.py"]

model = dict(
    generator=dict(
        type="RRDBNet",
        in_channels=3,
        out_channels=3,
        mid_channels=16,
        num_blocks=1,
        growth_channels=32,
        upscale_factor=4,
    )
)
