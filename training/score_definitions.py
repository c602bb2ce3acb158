"""Define every score in words. Tables and files of scores print them."""

DEFINITIONS = {
    "iou": (
        "intersection over union: pixels rightly predicted as the class, over pixels that are it "
        "in truth or in prediction"
    ),
    "miou_all": "mean IoU of background and all classes learned so far",
    "miou_all_without_background": "mean IoU of all classes learned so far, background left out",
    "miou_old": "mean IoU of the classes learned before this step, background left out",
    "miou_old_with_background": "mean IoU of background and the classes learned before this step",
    "miou_new": "mean IoU of the classes this step brought",
    "miou_base": "mean IoU of the classes of step 0, background left out",
    "miou_base_with_background": "mean IoU of background and the classes of step 0",
    "miou_added": "mean IoU of the classes of all steps after step 0",
    "pixel_accuracy": "share of the scored pixels, background included, that got the right class",
    "forgetting_first_minus_last": (
        "IoU right after the class was learned minus IoU now; mean over earlier steps' classes"
    ),
    "forgetting_best_minus_last": (
        "best IoU after any earlier step minus IoU now; mean over earlier steps' classes"
    ),
    "backward_transfer": (
        "mIoU of a group now minus right after it was learned; mean over earlier steps' groups"
    ),
    "average_over_steps": (
        "mean of the steps' mIoU over all classes learned so far, background included"
    ),
    "average_over_steps_without_background": (
        "mean of the steps' mIoU over all classes learned so far, background left out"
    ),
}
