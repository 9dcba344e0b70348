-- A ShardJob is Healthy when it is finished: a sync wave behind it starts with its results.
local health = { status = "Progressing", message = "waiting for the operator" }
if obj.metadata.deletionTimestamp ~= nil then
  health.message = "the job is being deleted"
  return health
end
if obj.status == nil or obj.status.conditions == nil then
  return health
end
-- What status says about an older spec is no longer true: a failed job may have been corrected.
if obj.status.observedGeneration ~= obj.metadata.generation then
  return health
end
local conditions = {}
for _, condition in ipairs(obj.status.conditions) do
  if condition.status == "True" then
    conditions[condition.type] = condition.message
  end
end
for _, known in ipairs({
  { "Stalled", "Degraded" },
  { "Failed", "Degraded" },
  { "Complete", "Healthy" },
  { "Suspended", "Suspended" },
  { "Reconciling", "Progressing" },
}) do
  if conditions[known[1]] ~= nil then
    health.status = known[2]
    health.message = conditions[known[1]]
    return health
  end
end
return health
