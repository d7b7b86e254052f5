# PCL-SR beside ESRGAN's relativistic GAN loss: about a minute on a CPU, on the data of `contrastive-sr prepare demo`.
# ESRGAN proper has a perceptual loss too; its VGG weights are downloaded: perceptual_loss=dict(type="PerceptualLoss").
_base_ = ["./demo_pcl_rrdb.py"]

model = dict(
    type="contrastive_sr.ContrastiveESRGAN",
    discriminator=dict(type="UNetDiscriminatorWithSpectralNorm", in_channels=3, mid_channels=16),
    gan_loss=dict(type="GANLoss", gan_type="vanilla", loss_weight=5e-3, real_label_val=1.0, fake_label_val=0),
)

train_cfg = dict(max_iters=80, val_interval=40)
param_scheduler = dict(milestones=[60])

optim_wrapper = dict(
    discriminator=dict(type="OptimWrapper", optimizer=dict(type="Adam", lr=1e-4, betas=(0.9, 0.999))),
)
