# The small twin of pcl_swinir_light.py: about a minute on a CPU, on the data of `contrastive-sr prepare demo`.
_base_ = ["./_base_/demo_x4.py"]

model = dict(
    generator=dict(
        type="SwinIRNet",
        in_chans=3,
        img_size=16,  # of the LR patches
        window_size=8,
        embed_dim=24,
        depths=[2, 2],
        num_heads=[4, 4],
        mlp_ratio=2,
        upsampler="pixelshuffledirect",
        resi_connection="1conv",
        upscale=4,
        img_range=1.0,
    )
)
