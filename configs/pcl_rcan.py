# PCL-SR, RCAN (10 groups of 20 blocks, 64 channels), DIV2K x4: `mim train mmagic configs/pcl_rcan.py --gpus 1`
# MMagic has no RCAN: this is BasicSR's, which must be installed too.
_base_ = ["./_base_/runtime.py", "./_base_/div2k_x4.py", "./_base_/pcl_x4.py"]

model = dict(
    generator=dict(
        type="contrastive_sr.RCAN",
        num_in_ch=3,
        num_out_ch=3,
        num_feat=64,
        num_group=10,
        num_block=20,
        squeeze_factor=16,
        upscale=4,
        res_scale=1,
        img_range=255.0,
        rgb_mean=[0.4488, 0.4371, 0.4040],
    )
)
