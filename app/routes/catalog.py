"""What can be asked for."""

from fastapi import APIRouter

from app.http.routing import StrictRoute
from app.schemas.operations import Families, Family, Preset, Presets
from models.catalog import FAMILIES, LOSSES, config_schema
from models.presets import DEFAULT_PRESET, PRESETS

router = APIRouter(prefix="/v1", tags=["catalog"], route_class=StrictRoute)


@router.get("/presets", summary="List presets")
async def list_presets() -> Presets:
    """Named starting points for a job beside `auto`, which picks one of them, and the JSON schema of what its `config` may change in them."""
    found = [Preset.model_validate(each) for each in PRESETS.values()]
    return Presets(data=found, default=DEFAULT_PRESET, config_schema=config_schema())


@router.get("/families", summary="List network families and losses")
async def list_families() -> Families:
    """What `config.network.family` and `config.loss` can be, and the JSON schema of each family's options."""
    found = [
        Family(
            name=each.name,
            summary=each.summary,
            game=each.game,
            mixes_batch=each.mixes_batch,
            options=each.options.model_json_schema(),
        )
        for each in FAMILIES.values()
    ]
    return Families(data=found, losses=LOSSES)
