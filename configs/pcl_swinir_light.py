# PCL-SR, SwinIR-light (four groups of six blocks, 60 channels), DIV2K x4:
# `mim train mmagic configs/pcl_swinir_light.py --gpus 1`
# The paper has not tried this network; its settings for the others are used. SwinIR's own: LR patches of 64 x 64, and a
# rate of 2e-4, halved four times in 500,000 steps.
_base_ = ["./_base_/runtime.py", "./_base_/div2k_x4.py", "./_base_/pcl_x4.py"]

model = dict(
    generator=dict(
        type="SwinIRNet",
        in_chans=3,
        img_size=48,  # of the LR patches
        window_size=8,
        embed_dim=60,
        depths=[6, 6, 6, 6],
        num_heads=[6, 6, 6, 6],
        mlp_ratio=2,
        upsampler="pixelshuffledirect",
        resi_connection="1conv",
        upscale=4,
        img_range=1.0,
    )
)
