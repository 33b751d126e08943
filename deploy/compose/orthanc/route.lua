-- Sends each MR series to the node, once no image of it has come for StableAge seconds. Results are
-- of other modalities and stay here; a series that is sent again costs time and changes nothing.

function OnStableSeries(seriesId, tags, metadata)
   if tags['Modality'] == 'MR' then
      local what = { Resources = { seriesId }, Asynchronous = true }
      RestApiPost('/modalities/neuroseg/store', DumpJson(what, true))
   end
end

-- What the node did not take, because it was away or had no room, is sent again
-- (every LuaHeartBeatPeriod seconds, as of Orthanc 1.11.1; before, `Resubmit` in its page of jobs).
function OnHeartBeat()
   for _, job in ipairs(ParseJson(RestApiGet('/jobs?expand'))) do
      if job['Type'] == 'DicomModalityStore' and job['State'] == 'Failure' then
         RestApiPost('/jobs/' .. job['ID'] .. '/resubmit', '')
      end
   end
end
