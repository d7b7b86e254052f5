# The small twin of pcl_rcan.py: about a minute on a CPU, on the data of `contrastive-sr prepare demo`.
_base_ = ["./_base_/demo_x4.py"]

model = dict(generator=dict(type="contrastive_sr.RCAN", num_feat=32, num_group=2, num_block=2, upscale=4))
