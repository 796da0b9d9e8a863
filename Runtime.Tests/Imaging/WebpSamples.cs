namespace Trimtab.Tests.Imaging;

/// <summary>Small WebP files of our own, made with cwebp, webpmux, Pillow and ImageMagick.</summary>
internal static class WebpSamples
{
    /// <summary>What is special; the file; EXIF orientation; SHA-256 of Pillow's pixels, [height, width, channels].</summary>
    internal static readonly (string Name, byte[] File, int Orientation, string Pixels)[] All =
    [
        ("lossy, normal filter, four segments", Convert.FromBase64String(
            "UklGRuoBAABXRUJQVlA4IN4BAACwDQCdASoyACUAPtFapEwoJSOiKrgN+QYaCWwAnTKEcDe6/xj9dvYEpn9j1hElPXfju9Ve3Y8z23Adc5z6PpAJfIuL" +
            "E73whXhBdaUrXRyre9oZs7lt3RDOekwqdwB0+uNJ9zKUR8HmsaxrYTwHuIvEz4pQsAagAP7rVeb7nP5Yk8ZkJovLYPYJowHTAAKAEupH/VJUtGMpTQCm" +
            "8Dj/bugQyNnobxZKhH99Y33HI4sBvZHOBvA3mjAhq+fLYf4PK30Ay1bBDOLpddasz/FKxtJudBXZk5Nmz99gZAkXxVXp5+XVqLZWkTYKRjQjNMMRA+IP" +
            "WuUuCYXOUhiOxYy6mKnoBagwe+p/mPQF8Hrb/dM/eyxqNVXyYfpDK8070Cp6edFA30uGvXE07aZSQbs9GzQFoAGcseE4MN1JeWCQadRTbI6t2BtPUWK5" +
            "N5bJJpWfBONDmVy+18TKfY3NKLH0aIvxHrmsRbc2jv2+9G4bhiXUKnzdamU4ry9/itAajxrdOlvfw8e/hX+LMva6RFae1f+jsME5Gzaz9lBFJXdaxnd+" +
            "C6Fiy2o4UmvoPov7TzbZJccRN7zvMmsTXfGZjYXzbpcjOkWEzxNvygc+ehKRvbSvvgvZmDEl7jOLDh1VmAAA"),
            1, "B5085D10AFD21BE2B40BCB6C5D3250EC4009C3AEA9368DE9B89D272371301772"),
        ("lossy, simple filter", Convert.FromBase64String(
            "UklGRhgBAABXRUJQVlA4IAwBAABSCQCdASolACMAPzmGuVQ0K6ekLjQOZoAnCWwAnTKEfjeq+YJXusdG2hkgNeW/bO1ttCjVBWToihEDrHRhrSgrxBSh" +
            "t2HSVsu7xwUz4gFgjKvUgAD+tIFnpHScuQgiVC6FNt+osVr9ZrQKpZ5DOi73dxsEeJCXIFmyK9Lk+CnyCC6JL3DlN8CrzTg9f66WHO83T/n1W7qk1FdY" +
            "Lwx/+mDGNnLeIVKqeKTZYjxnOZRmrD/9MT50qxr1p/6HurMZbIgK+4tEAJORtIGLrVHHBjGmjja12uPvO69oGyDfM4xbX7GAld2xhEfZ8FErDHX6fVYB" +
            "/tTuHcgKkYn22mwub0HHE3FBgDX1SmxPUAAA"),
            1, "D251CEFC5FDCCD2720405B66EF840D2FFCC9F99F7E41C3A082245FDAE1F89684"),
        ("lossy, fine, no filter", Convert.FromBase64String(
            "UklGRsoBAABXRUJQVlA4IL4BAAC0DACdASodABQAPhkKhEGCgKqAADCWwAnTKEcDeV/gB+pvPC7JdlP0WygTWD8mf6r7gP5nzLu6A/R39ivZd6EDrYPR" +
            "p8nn2W/2A/TP2ZrlfXSqVg9FUM168tNMTKnI83VkcwFw1/pS/fkJJ0+sIAD+/vVI9gjhCoOGyaS70Qy0tePH9dzv/1pNtftHY0J/DKHwzvvx/w7vfvBN" +
            "/1vtAoqkZ8dmB1FRreGCXoHIJwazx9tiLxsm4mpNVUz+iToSujj37fqDED/0uoVyxYhKhQCyAn9/7NWiB/GL1VwC6sKX0in+qEXYsdUYh+C8r245/EVH" +
            "z0cAyCK70OLF9W+3MVDx0i/hevPKYXdnyqsNu+N8qVQqj85h1ETAMTWnjzvVINLQUb288JEDGmqs7tg0AAT0ErHyudXE/F1Iu8KGy8E5POAYv5U0lcq4" +
            "0/7bQxVbu5Plv/FfqoWnGG/YDvxZeMGoJDpou14Qjq1DiV7emZ/ift+dxlDyBXXG7nRsSRNrw0v//ktHg6Bjbez3//0UuWSN+cNfpHzIX5mkp8VOxcbI" +
            "EZr/k2C3lpdZdAsPs/kq3irlyScJcxSF02miziwAAA=="),
            1, "4C8CA3EDE0618BF0DCA235D1F7E34BB16DF909B3640B92E04565FB9BDA99F9A1"),
        ("lossy, four partitions", Convert.FromBase64String(
            "UklGRpICAABXRUJQVlA4IIYCAABQEgCdASooAEYAPu1or1GppaQiqJgKMTAdiWwAnTKEdh+2fkz7CdS/uH4t3JchfYti/9SP4p3pvmt/Z79nfeF6Rj/A" +
            "dUtz6ns3fsz6SSlV3xDVsTz5ThsloXoL+iYExZOzyjkaDA9VjXlr9xKZunSoDva820xbsxZS/hJbnSDms8dgllXNTerbB4omAXF2o9XXC9hD8/aFcJ+2" +
            "gAD+7gi25vv0VAUEpupr1QKUPVukpAxXQRs8EZ1IjOLhyiRfUYJWNtirtM7s9KbdTLJWGP9NIsWZ6yj4UUq7zvwpVr5e3KDU1JiBci2jKXosWxat349x" +
            "oPw/vFsIKbRHAsEz2Z4TTwhlQQGjM6+t/3XAZND9I42fXVYkMh50XrMF//sZY4MlfjtGSA7KGvtOqNxMU02b4OosATxDKM1KLaz1LeRiA+SK8W9exDJY" +
            "Hv4rPk4SU6ftPzz/19S6N6kjg9X+YdxSUGy9RqliMoBk2SXEyA5jdxjTVTd4Aag0NS2+N8NxsZvXuZS5RpwDhXp+JM0o/NeyHUd4R37aHLRL3Dijq3z3" +
            "sXK7F3X4kIMrk8QgoA2FgbbohzZWsey352pyVSPVBg/lxg6Tc0kYQ+77yssq3R0SHS+YktJfgnWvKXd5MZvXK9YB2CZDDGZMaJbxlrBVd3fguvrDczWK" +
            "mcwI2Y7A3sVp+9sPMdemhnAshAL+/+sKxEIBTV3u+X7ExeamRYY8qQlNwQyrRHXLkZ+aBvjPoZ/eJPY/sPl8D2Lx6L3m0DvkPSSwEcE0ty27vfLx5+vm" +
            "5fbb1o59Bo6VLG+zhnROG0qNYfcjc4vzheRiMEAOK6yq7IlNGqNlcflD8mFehF95eFECrZGAAAAA"),
            1, "3FABFC9A446812C59804A7D8A2D8D2D374B89806E825A4488F124229203A34E3"),
        ("lossy with filtered lossless alpha", Convert.FromBase64String(
            "UklGRr4BAABXRUJQVlA4WAoAAAAQAAAAIAAAGAAAQUxQSLUAAAAFGTJp21DbvYvof+xwG4Bt2wCQW77OE5nzZhWwpOGDiAkgm7QJnaSXnF9EhL3Y9DK9" +
            "TNNLTBYARDQMg6xkJYsriDAwMwszsAAAABIiGkhIxAzCLOz9F/GmQCIkbyOYOiWieOj0rU4BAG46BYi4KRUi7kqNiJtSLeKpVDN66NTCpqlTC7sr1cIA" +
            "OrUIGDq1CFl0ahCw6zQAYNNpAMlJp0EEu04BBHadEogcOiUhWnVKIrToVIQ2AFZQOCDiAAAAUAgAnQEqIQAZAD7RWqRMqCUjoiqsAQAaCWwAnTKEc7e7" +
            "+YJVf6RrCJqfcksfg9S1Ibkm3TIZdPrZ8RTLfhY6dmPyp8trFfGeYVYAAP7WftRGmfiCQwdB45U19mfESmJXrjwCcd2My0DCw7f/zKO7D32Na37IsYk1" +
            "KXz06XD2RPuRygz6q2SBrorbcpFNJJFnw7OzBbE5ndj32Z3Ma6amQXZLvwd+ZYx78N3yR9+BIMkWjYabHRNMfMT/gh4J6xp1UixNlcX7hUFeqkK0BfK+" +
            "tgGyqYl03coHplULVpf4WAAAAA=="),
            1, "88BDE486E18336DD39EB8BFD7A26CF7746AB2AACFAD6445F31C94C3528401E4D"),
        ("lossy with raw alpha", Convert.FromBase64String(
            "UklGRhABAABXRUJQVlA4WAoAAAAQAAAADAAACwAAQUxQSJ0AAAAAgJWpvM7e6vT7/v7685+zxdbk8Pj9/vz37uK8zt7q9Pv+/vrz6dvM1uTw+P3+/Pfu" +
            "4tTDsOr0+/7++vPp28y6ppH4/f789+7i1MOwnIdy/v768+nbzLqmkXxnU/z37uLUw7Cch3JdSTfz6dvMuqaRfGdTQC4f4tTDsJyHcl1JNycZDsy6ppF8" +
            "Z1NALh8TCgOwnIdyXUk3JxkOBgIBAFZQOCBMAAAA0AEAnQEqDQAMAALATCWwAnQBDnlhiAAA/utTmRQBZ+YFhe2ceUECrLytpye5vjKvRSxX3sKHAs5A" +
            "Nw4qHp91uu01Dbf3h0MYOMAAAA=="),
            1, "4815EAEB940139F7E83FBE9C5D8AC38E64411C78B732802B7DBFE59D78D9D50D"),
        ("lossless, all transforms", Convert.FromBase64String(
            "UklGRvIGAABXRUJQVlA4TOUGAAAvJ4AHAAEyaZu73fyLroKI/ucLXn7AqG0kSX7WazQQGsZAHljHLoCGwzSyrTorka8CBkkJlPDtvw5IoqJc1batVBPn" +
            "UwMQgf5pTgTcnoz+B/wAAJCBhRtNA0BFwwI0v4YG0IE8hPHNNM4ftp1u8AsREQSACdiREgSB2Sz1AahQZQR0ak0NgqFMZTwIAgDCCAratmEc/rB3METE" +
            "BDjzqDbU0W4dFXxQSY4kyZGcjChwzrWAjJAICuHPOcfSLtvdE6Kbdmzbqq2qj7FwhxMVX6RETMTFc5c1uuTattVGOve9/4VuGuG8Rh1ZzzqDzqZjYUyA" +
            "mclSlUr/hsK0bRgn3b1EViRJjmTlILin+fPT8rPDbVnMQGgbSZCUagR398+f6SSwZNtt2zwQBKhGyfnM/rdnOz0qpPFCYdo2THZ7ypuvd/tBP2J8KuP9" +
            "cHg7HV5Oh6fTPtNu8+6fw/bPefvbvP153PzYb37IzXdvvm+bH/79/+nH5tfP29/fbf5+tf3/1Za32yefds//7l97/+7C4ePNw+Pk+LjV/3v/b/vJPo+8" +
            "e++rlz6/X+fJ8TUiZa26djBQXpwZjggCzOBUhMRd+tBV4q7mKB1GaBhRoFBykh5Dj6sx/r+OEsGxmJxr8tqBLLSiRggraYSUHAip+0SXlI5GNRsNDLxA" +
            "jPk4xli/XxWBoThKe8XsWKs0Qw2IwdQCxxTiHKVMqk50lWiNEFUQiiljrecxxuL7qQRlIXOVeK04OwnKNAAGC4GaA4EjShqpSCTRaDUsYSKEYgaQ8iU9" +
            "GoRGHOd3r5c2lTBnVcaUZb0oVmlQkTwRAhUsEYgJvYSE0ieHCBqFKMzTgXYGSgRjgdhSwcMpJpEnTJIgCRECFJlyxQmSMUMo/ejIiMrMyECgLWcFmwCI" +
            "rSsYczD2YKnCCSOSJkmBlEDQl2lyxR6uOqk09auThNzDFZ+JS7CGhKYGpBmoiWcFG2KLCZFNk6ZASlGh0JOJGyvbM7OI+b2Z2APxkJOXjERjA0MjkEZs" +
            "bKCa1iKjU2eLlCIlMdGuuWB2ZLCdwSLrfrmQiYUeJyaJtmELDm29+nZn+1G7d2X3fti9PuyfXzn06usvty00ijRFiqlQNUtUbsfdG8wO745iBev/5gTR" +
            "I0WRUES3bluyEz97dQhc0Y+3v02QNEmq1FkUDQy3L0etseZg9goLjrun8xhDDyFSxISAGAF2efbgKp9sn/UX+Aammg7L0q4Mlw5lqaZrmti7Ph2HzDGf" +
            "QCSAioAR0fGzR7nKe9oH/BE+AVToTrPrWFFcc4idJJ1cloNO1+kHjHl6OKF4AxHBjh0//thf5R37O9o7/B6gx3oCk4Uza2q2l6lVQzs2ynTXPI6WoV8R" +
            "KB7YiGgxwsvP967fL9f5dGOfb/Tzzaefbr768o79LX6L3qFQQ4eZBQYTs9fa8FwT06WM5SjzGyROSBKFYjCpOLF4NxYcQkyaIpttZo5yr3ylk9mOG3fB" +
            "NXdxK9uVU4WDjB9qJEEWgoWgeOQN3oGGozqJBA1rbgUFvkxZImYbd82W7MhWdoZmyQY4yCzTl34pDKHwgIGKkmLgDrldOmpoOLzzKDe88pLEbNlZb+kd" +
            "2ZKt2Z6BPcw4y4EMX3xO3OJiAABDHiDkIJZKT+pyWPnRYzAPL1MqYVcbd+kds2Pfpd0yY82GcIALYSblxfmcOTKjZ8cdGq8B3QY5paaWXw6vAX4oYaWV" +
            "MxH50l6XDl17IZFhXvWibsPQ53kXQaIDwYGUQNcdD8OpqeXwsihV4GelsnLJnTiSV13asxdFZY6jYsVsvsVjXykEEJAQWClr5gB1ZhZujlIlPSxyISOl" +
            "Ott5EUc2tNKUctVYRm3DSLvzwX0lijaAJhWJ1Knm3NljvvPXvtOkkIpTZ2Q7Np7Zqp80XJ5zLKptNnO97bf/fAsuAyAWiKhBFKI0c2pSc/q5FTNkJEgJ" +
            "Rf101sGjzjqql8gPc62xtZoFqNM+689PpQBRYWojEqZB5EiUdpwuqUm35XvILSgy2LDzfP2qFWCHKTdsUWMqPTb7jo/x519FkDC2GBaRsUZO2EIqrSQ3" +
            "HTKw+opnnbx46KxTfMJqfO075mb1wt/pI57bPwwUMiI6hZV4TZUtaZqkccH7oq32zGu2eT66JktkGmO1TVssZwMi9tMnnvH4vQuKysixFJGESmSgpVKI" +
            "ALPDhhuueGRL/J97mq3ZlutYOahywy1WDIazs77t0e7x/WM3CUQiZ0VwiI2IhUpQjAvDJiuuurAlO7o1O2XnGVnNHVdd27hpxdASLvfz2vHZ9i89Aaim" +
            "WD2liUkrm24WY3O+dF264OIWd5qducbErWyMF9c2b2Md49Ct2Y972j2e9gcAAA=="),
            1, "4D2A04469B1992DFBCF0515099FFFFD767132018F63DDD7BCDB83B7AF8AD2F15"),
        ("lossless with alpha", Convert.FromBase64String(
            "UklGRsIDAABXRUJQVlA4TLUDAAAvF4AEEAmAIAb8H3uI6H96QZBts5zk/lSHWM4iJCBE0f+hMkG2TVHuT3WGAzz9j+PT4DJBbx01SKhtW9WyvTbuTjQS" +
            "UYUYFKGB/K6f3b3H1+J+FCPbVm1VY86Nu6RBXMRBKKRCPvpd95hyI9l2rWpmH/GUS6pEgE0gRIWlLSzxxd2LgiTbpm1rjjnGXM+22/qaavv7T6lN24Bx" +
            "2pZD3j7dv+x77vV93c27eSev1+3Ny31z8/R0dfPwfHmd64WVV67+udjyz13L39Z/y5/19+I7vxff/v9a/O73xe/H18Uf31/+//31ZfHv55flfy9fFzx/" +
            "W57n7+M5L0yt50zP2ruUtdBhtb62JdG0pkYxGyzmiKyqgaYEPXgfwB71/znP9uYYx5rWwirL7lnrS1qTmZPRnuXRzAEXNKUBuorrQFBq4vczHhsLLc+y" +
            "zt5Y32okrTmttTcaLY8B12AMI8DqFBIFSEep+Pdn3AXLWtZFd/uzp+lLeralbLVhPNZgjmC4hxsIiBBUgqCFL8+8jgyrRRpNX9MzuZZn+1Ke42U9zWAG" +
            "GHxv0osI2hncACJNnY+ndTQWSazcLpdG6+nDQ29e/p3x+t+Od4e9fn6EwR3cQIgMsSd0gAHE4xhQ8f60hmtqpkxyLUmjxTJ3D12BTQH+/nE4QBO5aE/k" +
            "xSnwQsdj1N7q0KFPL/90lZXUtYHaSYe594//mAACnz/+kOaQQ9CQBG6w1xwfwyGmO+gUv+76o1q69qxOZSXGsOcvTzj+Xn78DR5/jV4+3okg0k4Ct+nm" +
            "UDV9kFN0i+70H94+VyrampPLSk2Cqndx1hSR6BBNGpCA9HETnARNOJAWfSQdvpeFv1zfRqe6uVgt64Kod6EWdaiLlHYSKE0lh7Z0+pCIQo50dXeATHOn" +
            "rXp9letGLIqKbxNRR5SmaJSg5ZQOnQ6aUJo6TQqpTgvKMHcu2aNeXkUtilx8CCuKqERZewANLH2aSM2ZLexpKnGOUDW1jM4le8jug3N6lem5eCZ70ZDI" +
            "wiwoIPQJiZRoEmmohilU42rQYm0tnaPMVlYru84ejrfjf1lVRENU8RBk4SAnQaVPEqWwgTl4C9pYTlnj6tQ0s5tdyi445dX4WNWYEWEFGchyQkckuo4x" +
            "mMFdEs9EGwvZhknsMrrMUlaV1d3e2x0/Kqp6BRkMfTK066KhDGGJhyBgCTZc2zKBLlVhVDaz7O32dqse/f6rFmrQeTKiI0pHCLMwK2Z4AAELbnBae0gH" +
            "K8wqq8PcuCau7FYCAA=="),
            1, "88F1DBFDD5E5A29697C671BF7C156BB927D5BAA60AA3FFA84F51BB3D230805DE"),
        ("lossless, three colours", Convert.FromBase64String(
            "UklGRlwAAABXRUJQVlA4TE8AAAAvFgAEABcgFkyuwacVpUAgwYpxtK0EssmXP0yI8x+70oBVJFlxliPnf0zgZyICP5hYnVtoiOh/AMsVQAK+7SGxZhbp" +
            "jwmSbO9rvDHCNTwSAA=="),
            1, "B40BD5039797572A2157478CEB53ECFD6D0EADAB23EA9D59E8AF086D4E8B4AA2"),
        ("one pixel", Convert.FromBase64String(
            "UklGRh4AAABXRUJQVlA4TBEAAAAvAAAAAAdQ7QIWsP+BiOh/AAA="),
            1, "4C90E0836D864C290002C066FBEDC574A6090B2355078B496A5692550DFD146A"),
        ("first of two frames, off the canvas's corner", Convert.FromBase64String(
            "UklGRloDAABXRUJQVlA4WAoAAAASAAAAEgAAEAAAQU5JTQYAAAD/////AABBTk1G3gIAAAIAAAMAAA4AAAoAADIAAABWUDhMxQIAAC8OgAIQJ+U2ANC2" +
            "QRXc6wd5Iv8/kqmXzUlAMdIbDiPbVpr33eIu/deVBnDyFXgfdiRJrqIe9RbhAw5gNH+4B6dv5LqNbVtV3hfc3cklJSSkDaogpgmtwJ2IoQM6cHd5hjuP" +
            "WMuNAYABgAHgdfg9+1GBBMYIQWBcBGI0SH9DNB4YeyNVaydq9UqNPKjBi/phNARYtXJyVlGukPNtVHxLLV9T38M5s3rs/uwvJhc3gT6nlwA4BtpUa1Yb" +
            "Sv6s465UfFHHXW15FKcfTHqLbidIfxpZ1l20wdTaOVGmzFqtMPTPYNlg/0ydrYd/45fgnTAUqaREQvMy958HfNbgZ7yQMh5YFncqBG3AV0E1g9ZRlgK5" +
            "AKjySiSkEF8gVFwMFxUkf0GZYy4tVeRVKCXf88gN0sSlVpSwV5C20vi9yAlK5zHfHhzyFzJ+rFr9idX+oHLDbaP1vk50BZvC5xKprcsl8NuquTuOFPbT" +
            "Su7PrOwcjuob9BuxjNl7snkKdx1DaGVNJaeSsR+RR4C7ObNqhw9ZeZCUKxE7Ex6UysIYF8L5DK3TqMzX1xJB+0gHWLPx1H0/q33jo1vYuYW1W1iE+Qdl" +
            "5K11kkbLfivf6krR0BkFUySCCRVhNkjhgNV8QBoWOg5sDu1CZVmRztO8xeloFGXB3feRFTlgvWm8fIvzFvYpXUiRbls9urY3rt2Rkg9M3YWy/zRyfPo+" +
            "CoAYAADBZLZt27ZtO9u2bdvu6Ij+R6VUyKVbfrNxoH95hcssF/OZZCwQMQy296zyWNVaNpWIB0M6dUfXGv/2v95oRgHAsFalkIp/71xuj9cHAus1SrlE" +
            "+P3gdNhtVotpqK1TJvq5f5qcGB8bHRnu6+1eF3w9Pk9Nz8zOzS8sLm1c33y+vB4e7O/t7mxvbXLYfx/vb0fHJ6dn5xeXVww6jUohQ6AwOAKJQmOwODyB" +
            "SAIAQU5NRkgAAAAAAAAAAAAIAAAIAAAyAAAAVlA4IDAAAACwAQCdASoJAAkABABoJbACdADzL6AAAP7FGYznrdkOJcLaOIXVWn1tkWZuLusCQAA="),
            1, "5F7F8EFDB17BA40F67086AF8285A7A7F70CB1EE394B0DBF21978289BD8BB16C5"),
        ("turned by EXIF", Convert.FromBase64String(
            "UklGRoQAAABXRUJQVlA4WAoAAAAIAAAADQAACAAAVlA4IEQAAADQAQCdASoOAAkAAsBMJbACdADcSxUHvAD+61bm/dhXs1PajdbMKPnX+V49zxgCDCeb" +
            "1b0yXFDc+iENy9SW+iZelBmgAEVYSUYaAAAATU0AKgAAAAgAAQESAAMAAAABAAYAAAAAAAA="),
            6, "3221F010FB4814B3B9511F591E07E89090F65A31552A6DBD0FFE79D35CBF0224"),
    ];
}
